_base_ = ['../../_base_/pairs/resnet56_resnet20_cifar100.py', '../../_base_/distill/dkd_cifar100.py']
_base_.distill.dkd.loss.update(_base_.pair.dkd)
model = dict(distill=_base_.distill)
