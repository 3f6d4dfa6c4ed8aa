_base_ = ['../../_base_/pairs/segformer-mit-b5_segformer-mit-b0_cityscapes.py', '../../_base_/distill/dkd.py']
model = dict(distill=_base_.distill)
