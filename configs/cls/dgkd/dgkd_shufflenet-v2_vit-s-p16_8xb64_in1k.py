_base_ = ['../../_base_/pairs/shufflenet-v2_vit-s-p16_in1k.py', '../../_base_/distill/dgkd_in1k.py']
model = dict(distill={{_base_.distill}})
