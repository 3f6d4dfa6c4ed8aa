# What DGKD's script runs: its weights, optimizer and schedule, which the blog's table need not have had.
_base_ = ['dgkd_resnet50_resnet18_1xb64_cifar100.py']
model = dict(distill=dict(dgkd=dict(loss=dict(beta=8.))))
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=0.05, weight_decay=0.01))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=True, begin=0, end=20),
    dict(type='MultiStepLR', by_epoch=True, milestones=[60, 75, 90], gamma=0.1),
]
train_cfg = dict(max_epochs=100)
