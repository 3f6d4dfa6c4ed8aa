_base_ = ['resnet50-cifar.py']
model = dict(backbone=dict(depth=18), head=dict(in_channels=512))
