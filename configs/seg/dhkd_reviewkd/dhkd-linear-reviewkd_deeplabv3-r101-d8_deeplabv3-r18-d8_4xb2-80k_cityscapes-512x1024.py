_base_ = [
    '../../_base_/pairs/deeplabv3-r101-d8_deeplabv3-r18-d8_cityscapes.py',
    '../../_base_/distill/dhkd_reviewkd.py',
]
model = dict(dual_head=_base_.dual_head, distill=_base_.distill)
