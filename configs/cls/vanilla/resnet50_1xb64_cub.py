_base_ = [
    '../../_base_/classifiers/resnet50.py', '../../_base_/datasets/cub200_224.py',
    '../../_base_/schedules/cub200_sgd_100e.py', '../../_base_/default_runtime_cls.py'
]
model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')), head=dict(num_classes=200))
