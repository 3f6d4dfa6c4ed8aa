_base_ = ['../../_base_/pairs/deeplabv3-r101-d8_pspnet-r18-d8_cityscapes.py', '../../_base_/distill/reviewkd.py']
model = dict(distill=dict(review=_base_.review))
