_base_ = ['../../_base_/pairs/faster-rcnn-r50_faster-rcnn-mobilenet-v2_coco.py', '../../_base_/distill/gdkd3_coco.py']
model = dict(distill={{_base_.distill}})
