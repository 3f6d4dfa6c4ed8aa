# ResNet-18 of half width, dilated to stride 8, under a pyramid-pooling head.
_base_ = ['../students/fcn_r18-w16-d8.py']
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    backbone=dict(stem_channels=32, base_channels=32),
    decode_head=dict(
        _delete_=True,
        type='PSPHead',
        in_channels=256,
        in_index=3,
        channels=128,
        pool_scales=(1, 2, 3, 6),
        dropout_ratio=0.1,
        num_classes=19,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0, avg_non_ignore=True)))
