_base_ = ['../../_base_/pairs/vgg13_mobilenet-v2_cifar100.py', '../../_base_/distill/dkd_cifar100.py']
_base_.distill.dkd.loss.update(_base_.pair.dkd)
model = dict(distill=_base_.distill)
