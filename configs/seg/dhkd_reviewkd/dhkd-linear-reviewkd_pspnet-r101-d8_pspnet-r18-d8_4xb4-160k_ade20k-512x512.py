_base_ = ['../../_base_/pairs/pspnet-r101-d8_pspnet-r18-d8_ade20k.py', '../../_base_/distill/dhkd_reviewkd.py']
model = dict(dual_head=_base_.dual_head, distill=_base_.distill)
