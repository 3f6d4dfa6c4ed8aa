# Weights are the pair's.
distill = dict(
    gdkd3=dict(
        loss=dict(type='mmseg_kd.GDKD3Loss', k=4, w0=1., w1=1., w2=8., temperature=4.),
        schedule=dict(warmup=20, by_epoch=True)))
