_base_ = ['../../_base_/pairs/resnet50_swin-t_in1k.py', '../../_base_/distill/gdkd3_vit.py']
model = dict(distill={{_base_.distill}})
