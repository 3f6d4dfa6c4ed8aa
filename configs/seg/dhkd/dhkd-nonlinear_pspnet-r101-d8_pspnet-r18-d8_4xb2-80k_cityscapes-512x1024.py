_base_ = ['../../_base_/pairs/pspnet-r101-d8_pspnet-r18-d8_cityscapes.py', '../../_base_/distill/dhkd.py']
model = dict(dual_head=dict(kind='nonlinear'), distill=_base_.distill)
