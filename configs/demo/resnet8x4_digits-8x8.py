_base_ = [
    '../_base_/classifiers/resnet8x4.py', '../_base_/datasets/digits_8x8.py', '../_base_/schedules/schedule_digits.py',
    '../_base_/default_runtime_cls.py'
]
model = dict(head=dict(num_classes=10))
