_base_ = ['../../_base_/pairs/resnet50_mobilenet-v1_tiny-imagenet.py', '../../_base_/distill/kd_in1k.py']
model = dict(head=dict(loss=dict(loss_weight={{_base_.supervised_weight}})), distill={{_base_.distill}})
