_base_ = ['../../_base_/pairs/resnet50_mobilenet-v1_tiny-imagenet.py', '../../_base_/distill/dkd_in1k.py']
_base_.distill.dkd.loss.update(_base_.pair.dkd)
model = dict(distill=_base_.distill)
