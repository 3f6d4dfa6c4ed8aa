_base_ = ['../../_base_/pairs/wrn40-2_wrn16-2_cifar100.py', '../../_base_/distill/dgkd_cifar100.py']
model = dict(distill={{_base_.distill}})
