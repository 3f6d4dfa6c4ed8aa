_base_ = ['../../_base_/pairs/wrn40-2_wrn40-1_cifar100.py', '../../_base_/distill/kd_cifar100.py']
model = dict(head=dict(loss=dict(loss_weight={{_base_.supervised_weight}})), distill={{_base_.distill}})
