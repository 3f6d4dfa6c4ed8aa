_base_ = ['../../_base_/pairs/pspnet-r101-d8_pspnet-r18-d8_ade20k.py', '../../_base_/distill/dgkd.py']
model = dict(distill=_base_.distill)
