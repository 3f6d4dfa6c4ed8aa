_base_ = ['../../_base_/pairs/pidnet-l_pidnet-s_cityscapes.py', '../../_base_/distill/cwd.py']
model = dict(distill=_base_.distill)
