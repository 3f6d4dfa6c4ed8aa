_base_ = ['mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py']
custom_imports = dict(imports=['mmseg_kd'])
zoo = 'https://download.openmmlab.com/mmdetection/v2.0/fcos/'
model = dict(
    type='mmseg_kd.DistilledSingleStageDetector',
    teacher=dict(
        config='mmdet::fcos/fcos_r101-caffe_fpn_gn-head-1x_coco.py',
        checkpoint=f'{zoo}fcos_r101_caffe_fpn_gn-head_1x_coco/fcos_r101_caffe_fpn_gn-head_1x_coco-0e37b982.pth'))
