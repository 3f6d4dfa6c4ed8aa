_base_ = ['../../_base_/pairs/pidnet-l_pidnet-s_cityscapes.py', '../../_base_/distill/dgkd_reviewkd.py']
_base_.distill.review.on = (_base_.stages, _base_.stages)
model = dict(distill=_base_.distill)
