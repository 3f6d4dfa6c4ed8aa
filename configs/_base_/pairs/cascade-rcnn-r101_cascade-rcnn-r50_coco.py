_base_ = ['mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py']
custom_imports = dict(imports=['mmseg_kd'])
zoo = 'https://download.openmmlab.com/mmdetection/v2.0/cascade_rcnn/'
model = dict(
    type='mmseg_kd.DistilledTwoStageDetector',
    teacher=dict(
        config='mmdet::cascade_rcnn/cascade-rcnn_r101_fpn_1x_coco.py',
        checkpoint=f'{zoo}cascade_rcnn_r101_fpn_1x_coco/cascade_rcnn_r101_fpn_1x_coco_20200317-0b6a2fbf.pth'))
