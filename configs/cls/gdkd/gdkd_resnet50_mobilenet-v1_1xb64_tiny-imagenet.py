_base_ = ['../../_base_/pairs/resnet50_mobilenet-v1_tiny-imagenet.py', '../../_base_/distill/gdkd_in1k.py']
_base_.distill.gdkd.loss.update(_base_.pair.gdkd)
model = dict(distill=_base_.distill)
