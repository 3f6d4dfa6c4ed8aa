_base_ = ['../_base_/pairs/resnet32x4_resnet8x4_digits.py', '../_base_/distill/gdkd_cifar100.py']
_base_.distill.gdkd.loss.update(_base_.pair.gdkd)
_base_.distill.gdkd.schedule.warmup = 2
model = dict(distill=_base_.distill)
