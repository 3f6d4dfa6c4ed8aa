_base_ = ['fcn_r18-w16-d8_mini-cityscapes-64x128.py', '../_base_/distill/dgkd.py']
model = dict(
    type='mmseg_kd.DistilledEncoderDecoder',
    teacher=dict(
        config='mmseg_kd::demo/pspnet_r18-w32-d8_mini-cityscapes-64x128.py',
        checkpoint='work_dirs/pspnet_r18-w32-d8_mini-cityscapes-64x128/iter_600.pth'),
    distill={{_base_.distill}})
