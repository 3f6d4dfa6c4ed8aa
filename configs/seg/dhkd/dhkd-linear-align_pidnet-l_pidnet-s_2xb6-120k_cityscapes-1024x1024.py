_base_ = ['dhkd-linear_pidnet-l_pidnet-s_2xb6-120k_cityscapes-1024x1024.py']
optim_wrapper = dict(type='mmseg_kd.GradAlignOptimWrapper', level='features')
