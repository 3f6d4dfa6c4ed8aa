_base_ = ['../_base_/detectors/gfl_r18-w16.py', '../_base_/datasets/mini_cityscapes_coco_64x128.py',
          '../_base_/schedules/schedule_demo_det.py', '../_base_/default_runtime_det.py']
# The student knows the first 60 of 240 pictures.
train_dataloader = dict(dataset=dict(indices=60))
