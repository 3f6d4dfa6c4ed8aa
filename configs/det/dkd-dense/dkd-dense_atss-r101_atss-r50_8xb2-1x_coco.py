_base_ = ['../../_base_/pairs/atss-r101_atss-r50_coco.py', '../../_base_/distill/dkd_dense_coco.py']
model = dict(distill={{_base_.distill}})
