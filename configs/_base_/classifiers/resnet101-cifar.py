_base_ = ['resnet50-cifar.py']
model = dict(backbone=dict(depth=101))
