_base_ = ['dhkd-linear_pspnet-r101-d8_pspnet-r18-d8_4xb4-160k_ade20k-512x512.py']
optim_wrapper = dict(type='mmseg_kd.GradAlignOptimWrapper', level='features')
