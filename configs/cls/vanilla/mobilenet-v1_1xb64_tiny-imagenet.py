# As in GDKD's code it begins from ImageNet: train mobilenet-v1_8xb64_in1k.py before.
_base_ = [
    '../../_base_/classifiers/mobilenet-v1.py', '../../_base_/datasets/tiny_imagenet_224.py',
    '../../_base_/schedules/tiny_imagenet_sgd_100e.py', '../../_base_/default_runtime_cls.py'
]
model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained', checkpoint='work_dirs/mobilenet-v1_8xb64_in1k/epoch_100.pth', prefix='backbone.')),
    head=dict(num_classes=200))
