_base_ = ['../../_base_/pairs/resnet32x4_shufflenet-v1_cifar100.py', '../../_base_/distill/dkd_cifar100.py']
_base_.distill.dkd.loss.update(_base_.pair.dkd)
model = dict(distill=_base_.distill)
