_base_ = ['../../_base_/pairs/resnet50_shufflenet-v2_in1k.py', '../../_base_/distill/dgkd_in1k.py']
model = dict(distill={{_base_.distill}})
