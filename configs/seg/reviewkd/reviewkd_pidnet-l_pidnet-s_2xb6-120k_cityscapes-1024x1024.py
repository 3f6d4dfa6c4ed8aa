_base_ = ['../../_base_/pairs/pidnet-l_pidnet-s_cityscapes.py', '../../_base_/distill/reviewkd.py']
_base_.review.on = (_base_.stages, _base_.stages)
model = dict(distill=dict(review=_base_.review))
