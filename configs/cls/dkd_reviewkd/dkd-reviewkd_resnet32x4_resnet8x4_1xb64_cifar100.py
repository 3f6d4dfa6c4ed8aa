_base_ = [
    '../../_base_/pairs/resnet32x4_resnet8x4_cifar100.py', '../../_base_/distill/dkd_cifar100.py',
    '../../_base_/distill/reviewkd_cifar100.py'
]
_base_.distill.dkd.loss.update(_base_.pair.dkd)
model = dict(distill=dict(**_base_.distill, review=_base_.review))
