_base_ = ['../../_base_/pairs/pspnet-r101-d8_pspnet-r18-d8_cityscapes.py', '../../_base_/distill/gdkd3.py']
model = dict(distill=_base_.distill)
