# The quickstart's teacher. teacher/README.md says how the file in that folder was made with this config.
_base_ = [
    '../_base_/teachers/deeplabv3plus_r18-w24-d8.py', '../_base_/datasets/mini_cityscapes_128x256.py',
    '../_base_/schedules/schedule_demo.py', '../_base_/default_runtime.py'
]
data_root = 'data/mini_cityscapes_3000'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
crop_size = (128, 256)
model = dict(data_preprocessor=dict(size=crop_size))
optim_wrapper = dict(optimizer=dict(lr=5e-3))
param_scheduler = [dict(type='PolyLR', eta_min=0., power=0.9, begin=0, end=3000, by_epoch=False)]
train_cfg = dict(max_iters=3000, val_interval=500)
default_hooks = dict(checkpoint=dict(interval=500, max_keep_ckpts=2))
