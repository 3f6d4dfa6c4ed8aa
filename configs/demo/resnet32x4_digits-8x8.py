_base_ = [
    '../_base_/classifiers/resnet32x4.py', '../_base_/datasets/digits_8x8.py', '../_base_/schedules/schedule_digits.py',
    '../_base_/default_runtime_cls.py'
]
model = dict(head=dict(num_classes=10))
# The teacher had five times as many labels: all 1000. Deeper, it needs a smaller first step.
max_epochs = 20
train_dataloader = dict(dataset=dict(per_class=None))
optim_wrapper = dict(optimizer=dict(lr=0.02))
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=max_epochs, by_epoch=True, begin=0, end=max_epochs, convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
