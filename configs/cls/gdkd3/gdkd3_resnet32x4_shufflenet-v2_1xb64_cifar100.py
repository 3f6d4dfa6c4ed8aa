_base_ = ['../../_base_/pairs/resnet32x4_shufflenet-v2_cifar100.py', '../../_base_/distill/gdkd3_cifar100.py']
_base_.distill.gdkd3.loss.update(_base_.pair.gdkd3)
model = dict(distill=_base_.distill)
