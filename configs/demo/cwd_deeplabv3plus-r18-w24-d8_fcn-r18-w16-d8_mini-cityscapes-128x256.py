_base_ = ['fcn_r18-w16-d8_mini-cityscapes-128x256.py']
# The teacher's file is part of the repository; teacher/README.md says how it was made.
model = dict(
    type='mmseg_kd.DistilledEncoderDecoder',
    teacher=dict(
        config='mmseg_kd::demo/deeplabv3plus_r18-w24-d8_mini-cityscapes-128x256.py',
        checkpoint='{{ fileDirname }}/teacher/deeplabv3plus_r18-w24-d8_mini-cityscapes-128x256.pth'),
    distill=dict(cwd=dict(loss=dict(type='mmseg_kd.CWDLoss', temperature=4., loss_weight=3.), positions='all')))
