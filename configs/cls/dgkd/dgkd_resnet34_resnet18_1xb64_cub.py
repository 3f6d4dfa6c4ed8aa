_base_ = ['../../_base_/pairs/resnet34_resnet18_cub.py', '../../_base_/distill/dgkd_in1k.py']
model = dict(distill={{_base_.distill}})
