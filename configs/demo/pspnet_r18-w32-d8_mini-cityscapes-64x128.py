_base_ = [
    '../_base_/teachers/pspnet_r18-w32-d8.py', '../_base_/datasets/mini_cityscapes_64x128.py',
    '../_base_/schedules/schedule_demo.py', '../_base_/default_runtime.py'
]
crop_size = (64, 128)
model = dict(data_preprocessor=dict(size=crop_size))
optim_wrapper = dict(optimizer=dict(lr=3e-3))
param_scheduler = [dict(type='PolyLR', eta_min=0., power=0.9, begin=0, end=600, by_epoch=False)]
train_cfg = dict(max_iters=600, val_interval=600)
default_hooks = dict(checkpoint=dict(interval=600))
