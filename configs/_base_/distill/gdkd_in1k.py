# w1 and w2 are the pair's.
distill = dict(gdkd=dict(loss=dict(type='mmseg_kd.GDKDLoss', k=5, w0=0.5, w1=1., w2=1., temperature=1.)))
