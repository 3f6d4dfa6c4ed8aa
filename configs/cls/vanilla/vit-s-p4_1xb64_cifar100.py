# DeiT's schedule, its learning rate for a batch of 64.
_base_ = [
    '../../_base_/classifiers/vit-s-p16.py', '../../_base_/datasets/cifar100_bs64.py',
    '../../_base_/schedules/imagenet_adamw_300e.py', '../../_base_/default_runtime_cls.py'
]
model = dict(backbone=dict(img_size=32, patch_size=4), head=dict(num_classes=100))
optim_wrapper = dict(optimizer=dict(lr=6.25e-5))
