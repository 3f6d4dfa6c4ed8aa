_base_ = [
    '../../_base_/pairs/deeplabv3-r101-d8_deeplabv3-mobilenet-v2-d8_cityscapes.py',
    '../../_base_/distill/gdkd3_reviewkd.py',
]
model = dict(distill=_base_.distill)
