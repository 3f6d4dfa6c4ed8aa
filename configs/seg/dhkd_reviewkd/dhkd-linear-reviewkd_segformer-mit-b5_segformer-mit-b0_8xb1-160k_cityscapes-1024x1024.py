_base_ = ['../../_base_/pairs/segformer-mit-b5_segformer-mit-b0_cityscapes.py', '../../_base_/distill/dhkd_reviewkd.py']
model = dict(dual_head=_base_.dual_head, distill=_base_.distill)
