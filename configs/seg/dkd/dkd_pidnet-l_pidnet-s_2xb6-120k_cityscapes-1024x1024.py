_base_ = ['../../_base_/pairs/pidnet-l_pidnet-s_cityscapes.py', '../../_base_/distill/dkd.py']
model = dict(distill=_base_.distill)
