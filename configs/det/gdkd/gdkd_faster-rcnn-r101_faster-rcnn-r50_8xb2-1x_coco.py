_base_ = ['../../_base_/pairs/faster-rcnn-r101_faster-rcnn-r50_coco.py', '../../_base_/distill/gdkd_coco.py']
model = dict(distill={{_base_.distill}})
