_base_ = [
    '../../_base_/classifiers/resnet50.py', '../../_base_/datasets/tiny_imagenet_224.py',
    '../../_base_/schedules/tiny_imagenet_sgd_100e.py', '../../_base_/default_runtime_cls.py'
]
model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')), head=dict(num_classes=200))
