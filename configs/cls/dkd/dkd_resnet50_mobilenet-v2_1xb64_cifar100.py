_base_ = ['../../_base_/pairs/resnet50_mobilenet-v2_cifar100.py', '../../_base_/distill/dkd_cifar100.py']
_base_.distill.dkd.loss.update(_base_.pair.dkd)
model = dict(distill=_base_.distill)
