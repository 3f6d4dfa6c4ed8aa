_base_ = ['../../_base_/pairs/segformer-mit-b5_segformer-mit-b0_cityscapes.py', '../../_base_/distill/reviewkd.py']
model = dict(distill=dict(review=_base_.review))
