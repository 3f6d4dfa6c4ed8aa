_base_ = ['../../_base_/pairs/resnet32x4_shufflenet-v2_cifar100.py', '../../_base_/distill/dgkd_cifar100.py']
model = dict(distill={{_base_.distill}})
