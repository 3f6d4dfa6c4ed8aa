_base_ = ['mmdet::atss/atss_r50_fpn_1x_coco.py']
custom_imports = dict(imports=['mmseg_kd'])
zoo = 'https://download.openmmlab.com/mmdetection/v2.0/atss/'
model = dict(
    type='mmseg_kd.DistilledSingleStageDetector',
    teacher=dict(
        config='mmdet::atss/atss_r101_fpn_1x_coco.py',
        checkpoint=f'{zoo}atss_r101_fpn_1x_coco/atss_r101_fpn_1x_20200825-dfcadd6f.pth'))
