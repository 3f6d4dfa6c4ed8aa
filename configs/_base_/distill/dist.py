distill = dict(dist=dict(loss=dict(type='mmseg_kd.DISTLoss', beta=1., gamma=1., temperature=1.)))
