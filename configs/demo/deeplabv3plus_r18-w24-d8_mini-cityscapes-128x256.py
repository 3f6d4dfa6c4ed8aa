# The quickstart's teacher, as it was trained for the file in configs/demo/released/. It learns from 3,000 pictures:
#   python tools/dataset_converters/mini_cityscapes.py data/mini_cityscapes_3000 --num-train 3000 --num-val 100 \
#       --size 128 256 --seed 1 --workers 2
_base_ = [
    '../_base_/teachers/deeplabv3plus_r18-w24-d8.py', '../_base_/datasets/mini_cityscapes_128x256.py',
    '../_base_/schedules/schedule_demo.py', '../_base_/default_runtime.py'
]
data_root = 'data/mini_cityscapes_3000'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
crop_size = (128, 256)
data_preprocessor = dict(size=crop_size)
model = dict(data_preprocessor=data_preprocessor)
optim_wrapper = dict(optimizer=dict(lr=5e-3))
param_scheduler = [dict(type='PolyLR', eta_min=0., power=0.9, begin=0, end=3000, by_epoch=False)]
train_cfg = dict(max_iters=3000, val_interval=500)
default_hooks = dict(checkpoint=dict(interval=500, max_keep_ckpts=2))
