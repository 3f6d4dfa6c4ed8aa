_base_ = ['gfl_r18-w16_mini-cityscapes-64x128.py']
model = dict(
    backbone=dict(stem_channels=32, base_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=48),
    bbox_head=dict(in_channels=48, feat_channels=48))
# The teacher knows all labels.
train_dataloader = dict(dataset=dict(indices=None))
