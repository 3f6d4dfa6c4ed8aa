_base_ = ['dhkd-linear_deeplabv3-r101-d8_deeplabv3-mobilenet-v2-d8_4xb2-80k_cityscapes-512x1024.py']
optim_wrapper = dict(type='mmseg_kd.GradAlignOptimWrapper', level='features')
