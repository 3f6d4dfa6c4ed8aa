_base_ = ['../../_base_/pairs/retinanet-r50_retinanet-r18_coco.py', '../../_base_/distill/binary_kl_coco.py']
model = dict(distill={{_base_.distill}})
