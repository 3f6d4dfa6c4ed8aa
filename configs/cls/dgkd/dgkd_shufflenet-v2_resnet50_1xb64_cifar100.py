_base_ = ['../../_base_/pairs/shufflenet-v2_resnet50_cifar100.py', '../../_base_/distill/dgkd_cifar100.py']
model = dict(distill={{_base_.distill}})
