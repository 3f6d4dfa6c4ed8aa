_base_ = ['../../_base_/pairs/gfl-r101_gfl-r18_coco.py', '../../_base_/distill/ld_gdkd_coco.py']
model = dict(distill={{_base_.distill}})
