_base_ = [
    '../../_base_/classifiers/vit-s-p16.py', '../../_base_/datasets/imagenet_bs64.py',
    '../../_base_/schedules/imagenet_adamw_300e.py', '../../_base_/default_runtime_cls.py'
]
