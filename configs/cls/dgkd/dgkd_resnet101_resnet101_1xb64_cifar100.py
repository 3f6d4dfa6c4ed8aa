_base_ = ['../../_base_/pairs/resnet101_resnet101_cifar100.py', '../../_base_/distill/dgkd_cifar100.py']
model = dict(distill={{_base_.distill}})
