_base_ = ['kd_deeplabv3plus-r18-w24-d8_fcn-r18-w16-d8_mini-cityscapes-128x256.py']
model = dict(distill=dict(
    _delete_=True, dkd=dict(loss=dict(type='mmseg_kd.DKDLoss', alpha=1., beta=1., temperature=1.), positions='all')))
