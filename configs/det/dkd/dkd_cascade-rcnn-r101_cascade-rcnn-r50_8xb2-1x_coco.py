_base_ = ['../../_base_/pairs/cascade-rcnn-r101_cascade-rcnn-r50_coco.py', '../../_base_/distill/dkd_coco.py']
model = dict(distill={{_base_.distill}})
