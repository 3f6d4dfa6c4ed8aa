model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmseg_kd.CIFARShuffleNetV2'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead', num_classes=100, in_channels=1024,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.)))
