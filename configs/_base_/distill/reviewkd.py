# ReviewKD on the four stages of two ResNets: the fusion of the student's stages is trained along. The paper does not
# segment: weight, width and warm-up are a start, not a result.
review = dict(
    loss=dict(type='mmseg_kd.HierarchicalContextLoss', loss_weight=1.),
    on=(['backbone.layer1', 'backbone.layer2', 'backbone.layer3', 'backbone.layer4'],
        ['backbone.layer1', 'backbone.layer2', 'backbone.layer3', 'backbone.layer4']),
    adapter=dict(kind='review', width=128),
    schedule=dict(warmup=1000))
