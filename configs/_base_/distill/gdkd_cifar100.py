# Weights are the pair's.
distill = dict(
    gdkd=dict(
        loss=dict(type='mmseg_kd.GDKDLoss', k=5, w0=1., w1=1., w2=8., temperature=4.),
        schedule=dict(warmup=20, by_epoch=True)))
