_base_ = ['../_base_/pairs/resnet32x4_resnet8x4_digits.py', '../_base_/distill/dgkd_cifar100.py']
_base_.distill.dgkd.schedule.warmup = 2
model = dict(distill=_base_.distill)
