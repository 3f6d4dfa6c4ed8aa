_base_ = ['../../_base_/pairs/upernet-swin-b_upernet-r18_ade20k.py', '../../_base_/distill/reviewkd.py']
model = dict(distill=dict(review=_base_.review))
