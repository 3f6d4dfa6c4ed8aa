# beta is the pair's.
distill = dict(
    dkd=dict(
        loss=dict(type='mmseg_kd.DKDLoss', alpha=1., beta=8., temperature=4.),
        schedule=dict(warmup=20, by_epoch=True)))
