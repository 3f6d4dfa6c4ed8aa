_base_ = ['dhkd-linear_segformer-mit-b5_segformer-mit-b0_8xb1-160k_cityscapes-1024x1024.py']
optim_wrapper = dict(type='mmseg_kd.GradAlignOptimWrapper', level='features')
