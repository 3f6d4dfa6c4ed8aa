_base_ = ['../../_base_/pairs/resnet18_resnet18_cifar100.py', '../../_base_/distill/dgkd_cifar100.py']
model = dict(distill={{_base_.distill}})
