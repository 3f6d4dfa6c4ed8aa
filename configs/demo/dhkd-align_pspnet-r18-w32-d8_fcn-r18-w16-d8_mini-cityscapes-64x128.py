_base_ = ['dhkd_pspnet-r18-w32-d8_fcn-r18-w16-d8_mini-cityscapes-64x128.py']
optim_wrapper = dict(type='mmseg_kd.GradAlignOptimWrapper', level='features')
