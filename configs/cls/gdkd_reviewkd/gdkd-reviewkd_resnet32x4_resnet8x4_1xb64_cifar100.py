_base_ = [
    '../../_base_/pairs/resnet32x4_resnet8x4_cifar100.py', '../../_base_/distill/gdkd_cifar100.py',
    '../../_base_/distill/reviewkd_cifar100.py'
]
_base_.distill.gdkd.loss.update(_base_.pair.gdkd)
model = dict(distill=dict(**_base_.distill, review=_base_.review))
