_base_ = [
    '../_base_/students/fcn_r18-w16-d8.py', '../_base_/datasets/mini_cityscapes_128x256.py',
    '../_base_/schedules/schedule_demo.py', '../_base_/default_runtime.py'
]
crop_size = (128, 256)
model = dict(data_preprocessor=dict(size=crop_size))
