_base_ = [
    '../../_base_/classifiers/shufflenet-v2.py', '../../_base_/datasets/imagenet_bs64.py',
    '../../_base_/schedules/imagenet_sgd_100e.py', '../../_base_/default_runtime_cls.py'
]
