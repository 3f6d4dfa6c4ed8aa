model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmseg_kd.CIFARResNet', depth=110),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead', num_classes=100, in_channels=64,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.)))
