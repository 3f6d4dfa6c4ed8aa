_base_ = ['../../_base_/pairs/faster-rcnn-r101_faster-rcnn-r50_coco.py', '../../_base_/distill/dhkd_coco.py']
model = dict(dual_head={{_base_.dual_head}}, distill={{_base_.distill}})
