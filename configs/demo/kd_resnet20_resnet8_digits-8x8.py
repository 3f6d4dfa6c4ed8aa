_base_ = ['../_base_/pairs/resnet20_resnet8_digits.py', '../_base_/distill/kd_cifar100.py']
model = dict(head=dict(loss=dict(loss_weight={{_base_.supervised_weight}})), distill={{_base_.distill}})
