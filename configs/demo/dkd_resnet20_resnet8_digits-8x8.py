_base_ = ['../_base_/pairs/resnet20_resnet8_digits.py', '../_base_/distill/dkd_cifar100.py']
_base_.distill.dkd.loss.update(_base_.pair.dkd)
_base_.distill.dkd.schedule.warmup = 2
model = dict(distill=_base_.distill)
