_base_ = ['fcn_r18-w16-d8_camvid-120x160.py', '../_base_/distill/dkd.py']
model = dict(
    type='mmseg_kd.DistilledEncoderDecoder',
    teacher=dict(
        config='mmseg_kd::demo/pspnet_r18-w32-d8_camvid-120x160.py',
        checkpoint='work_dirs/pspnet_r18-w32-d8_camvid-120x160/iter_700.pth'),
    distill={{_base_.distill}})
