model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmseg_kd.CIFARResNet', depth=8, width_factor=4, stem_channels=32),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead', num_classes=100, in_channels=256,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.)))
