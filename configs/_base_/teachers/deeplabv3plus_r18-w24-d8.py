# ResNet-18 of three eighths of its width, dilated to stride 8, under DeepLabV3+'s head, which sees stride 4 as well.
_base_ = ['../students/fcn_r18-w16-d8.py']
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    backbone=dict(stem_channels=24, base_channels=24),
    decode_head=dict(
        _delete_=True,
        type='DepthwiseSeparableASPPHead',
        in_channels=192,
        in_index=3,
        channels=64,
        dilations=(1, 2, 4, 6),
        c1_in_channels=24,
        c1_channels=16,
        dropout_ratio=0.1,
        num_classes=19,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0, avg_non_ignore=True)))
