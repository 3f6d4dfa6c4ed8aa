_base_ = ['../../_base_/pairs/retinanet-r101_retinanet-r50_coco.py', '../../_base_/distill/dhkd_coco.py']
model = dict(dual_head={{_base_.dual_head}}, distill={{_base_.distill}})
