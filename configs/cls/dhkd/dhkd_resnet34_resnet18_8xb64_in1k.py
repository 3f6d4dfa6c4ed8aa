_base_ = ['../../_base_/pairs/resnet34_resnet18_in1k.py', '../../_base_/distill/dhkd_in1k.py']
model = dict(dual_head={{_base_.dual_head}}, distill={{_base_.distill}})
