_base_ = ['../../_base_/pairs/vit-s-p16_shufflenet-v2_in1k.py', '../../_base_/distill/dgkd_in1k.py']
model = dict(distill={{_base_.distill}})
