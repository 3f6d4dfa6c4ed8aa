_base_ = [
    '../_base_/teachers/pspnet_r18-w32-d8.py', '../_base_/datasets/camvid_cityscapes_120x160.py',
    '../_base_/schedules/schedule_demo.py', '../_base_/default_runtime.py'
]
crop_size = (120, 160)
model = dict(data_preprocessor=dict(size=crop_size))
optim_wrapper = dict(optimizer=dict(lr=3e-3))
param_scheduler = [dict(type='PolyLR', eta_min=0., power=0.9, begin=0, end=700, by_epoch=False)]
train_cfg = dict(max_iters=700, val_interval=700)
default_hooks = dict(checkpoint=dict(interval=700))
