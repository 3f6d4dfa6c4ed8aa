_base_ = ['../../_base_/pairs/pidnet-l_pidnet-s_cityscapes.py', '../../_base_/distill/dhkd.py']
model = dict(dual_head=dict(kind='nonlinear'), distill=_base_.distill)
