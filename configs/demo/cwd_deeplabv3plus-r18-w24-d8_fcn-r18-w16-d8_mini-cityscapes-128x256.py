_base_ = ['kd_deeplabv3plus-r18-w24-d8_fcn-r18-w16-d8_mini-cityscapes-128x256.py']
model = dict(distill=dict(
    _delete_=True, cwd=dict(loss=dict(type='mmseg_kd.CWDLoss', temperature=4., loss_weight=3.), positions='all')))
