# ReviewKD on the three stages and the pooled features of CIFAR's ResNets, as in GDKD's code; so is the width, which is
# that of resnet8x4's last stage.
review = dict(
    loss=dict(type='mmseg_kd.HierarchicalContextLoss', loss_weight=1.),
    on=(['backbone.layer1', 'backbone.layer2', 'backbone.layer3', 'neck[0]'],
        ['backbone.layer1', 'backbone.layer2', 'backbone.layer3', 'neck[0]']),
    adapter=dict(kind='review', width=256),
    schedule=dict(warmup=20, by_epoch=True))
