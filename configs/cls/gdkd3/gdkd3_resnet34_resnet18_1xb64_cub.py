_base_ = ['../../_base_/pairs/resnet34_resnet18_cub.py', '../../_base_/distill/gdkd3_in1k.py']
_base_.distill.gdkd3.loss.update(_base_.pair.gdkd3)
model = dict(distill=_base_.distill)
