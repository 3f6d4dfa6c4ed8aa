_base_ = ['../../_base_/pairs/mask-rcnn-r101_mask-rcnn-r50_coco.py', '../../_base_/distill/dkd_mask_coco.py']
model = dict(distill={{_base_.distill}})
