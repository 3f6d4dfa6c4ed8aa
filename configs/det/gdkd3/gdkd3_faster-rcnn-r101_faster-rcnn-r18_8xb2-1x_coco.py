_base_ = ['../../_base_/pairs/faster-rcnn-r101_faster-rcnn-r18_coco.py', '../../_base_/distill/gdkd3_coco.py']
model = dict(distill={{_base_.distill}})
