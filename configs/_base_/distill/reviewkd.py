# ReviewKD on the four maps that a backbone returns: the fusion of the student's is trained along. The paper does not
# segment: weight, width and warm-up are a start, not a result.
review = dict(
    loss=dict(type='mmseg_kd.HierarchicalContextLoss', loss_weight=1.),
    on=(['backbone[0]', 'backbone[1]', 'backbone[2]', 'backbone[3]'],
        ['backbone[0]', 'backbone[1]', 'backbone[2]', 'backbone[3]']),
    adapter=dict(kind='review', width=128),
    schedule=dict(warmup=1000))
