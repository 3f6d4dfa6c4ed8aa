_base_ = ['../../_base_/pairs/segformer-mit-b5_segformer-mit-b0_cityscapes.py', '../../_base_/distill/dhkd.py']
model = dict(dual_head=dict(kind='nonlinear'), distill=_base_.distill)
