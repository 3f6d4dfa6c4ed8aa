_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py']
custom_imports = dict(imports=['mmseg_kd'])
zoo = 'https://download.openmmlab.com/mmdetection/v2.0/retinanet/'
model = dict(
    type='mmseg_kd.DistilledSingleStageDetector',
    teacher=dict(
        config='mmdet::retinanet/retinanet_r101_fpn_1x_coco.py',
        checkpoint=f'{zoo}retinanet_r101_fpn_1x_coco/retinanet_r101_fpn_1x_coco_20200130-7a93545f.pth'))
