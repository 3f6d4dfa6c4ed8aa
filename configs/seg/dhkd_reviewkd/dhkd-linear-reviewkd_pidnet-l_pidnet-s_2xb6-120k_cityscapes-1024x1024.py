_base_ = ['../../_base_/pairs/pidnet-l_pidnet-s_cityscapes.py', '../../_base_/distill/dhkd_reviewkd.py']
_base_.distill.review.on = (_base_.stages, _base_.stages)
model = dict(dual_head=_base_.dual_head, distill=_base_.distill)
