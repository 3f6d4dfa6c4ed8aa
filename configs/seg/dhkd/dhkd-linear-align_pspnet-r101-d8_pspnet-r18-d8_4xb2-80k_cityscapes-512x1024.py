_base_ = ['dhkd-linear_pspnet-r101-d8_pspnet-r18-d8_4xb2-80k_cityscapes-512x1024.py']
optim_wrapper = dict(type='mmseg_kd.GradAlignOptimWrapper', level='features')
