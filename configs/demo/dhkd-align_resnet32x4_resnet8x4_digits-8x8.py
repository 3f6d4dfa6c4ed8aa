_base_ = ['dhkd_resnet32x4_resnet8x4_digits-8x8.py']
optim_wrapper = dict(type='mmseg_kd.GradAlignOptimWrapper', scope='all')
