_base_ = ['../../_base_/pairs/resnet110_resnet32_cifar100.py', '../../_base_/distill/dgkd_cifar100.py']
model = dict(distill={{_base_.distill}})
