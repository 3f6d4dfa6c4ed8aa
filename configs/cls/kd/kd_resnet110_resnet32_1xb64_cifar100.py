_base_ = ['../../_base_/pairs/resnet110_resnet32_cifar100.py', '../../_base_/distill/kd_cifar100.py']
model = dict(head=dict(loss=dict(loss_weight={{_base_.supervised_weight}})), distill={{_base_.distill}})
