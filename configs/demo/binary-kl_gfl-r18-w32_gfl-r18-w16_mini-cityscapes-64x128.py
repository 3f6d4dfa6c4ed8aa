_base_ = ['gfl_r18-w16_mini-cityscapes-64x128.py', '../_base_/distill/dense_det.py']
model = dict(
    type='mmseg_kd.DistilledSingleStageDetector',
    teacher=dict(
        config='mmseg_kd::demo/gfl_r18-w32_mini-cityscapes-64x128.py',
        checkpoint='work_dirs/gfl_r18-w32_mini-cityscapes-64x128/iter_400.pth'),
    distill={{_base_.distill}})
