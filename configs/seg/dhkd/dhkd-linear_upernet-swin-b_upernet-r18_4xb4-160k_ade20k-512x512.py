_base_ = ['../../_base_/pairs/upernet-swin-b_upernet-r18_ade20k.py', '../../_base_/distill/dhkd.py']
model = dict(dual_head=_base_.dual_head, distill=_base_.distill)
