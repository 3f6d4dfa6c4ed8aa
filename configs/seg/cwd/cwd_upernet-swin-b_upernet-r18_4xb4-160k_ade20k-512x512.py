_base_ = ['../../_base_/pairs/upernet-swin-b_upernet-r18_ade20k.py', '../../_base_/distill/cwd.py']
model = dict(distill=_base_.distill)
