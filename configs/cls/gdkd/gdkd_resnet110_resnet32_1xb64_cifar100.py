_base_ = ['../../_base_/pairs/resnet110_resnet32_cifar100.py', '../../_base_/distill/gdkd_cifar100.py']
_base_.distill.gdkd.loss.update(_base_.pair.gdkd)
model = dict(distill=_base_.distill)
