distill = dict(gdkd=dict(loss=dict(type='mmseg_kd.GDKDLoss', k=5, w0=1., w1=1., w2=1., temperature=1., loss_weight=1.)))
