_base_ = ['dhkd-linear_upernet-swin-b_upernet-r18_4xb4-160k_ade20k-512x512.py']
optim_wrapper = dict(type='mmseg_kd.GradAlignOptimWrapper', level='features')
