_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py']
custom_imports = dict(imports=['mmseg_kd'])
zoo = 'https://download.openmmlab.com/mmdetection/v2.0/mask_rcnn/'
model = dict(
    type='mmseg_kd.DistilledTwoStageDetector',
    teacher=dict(
        config='mmdet::mask_rcnn/mask-rcnn_r101_fpn_1x_coco.py',
        checkpoint=f'{zoo}mask_rcnn_r101_fpn_1x_coco/mask_rcnn_r101_fpn_1x_coco_20200204-1efe0ed5.pth'))
