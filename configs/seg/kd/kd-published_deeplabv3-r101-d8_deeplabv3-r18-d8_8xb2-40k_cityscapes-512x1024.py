_base_ = [
    '../../_base_/pairs/deeplabv3-r101-d8_deeplabv3-r18-d8_cityscapes-40k.py',
    '../../_base_/distill/kd_cityscapes.py']
model = dict(distill=_base_.distill)
