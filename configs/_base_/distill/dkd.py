distill = dict(dkd=dict(loss=dict(type='mmseg_kd.DKDLoss', alpha=1., beta=0.25, temperature=1., loss_weight=3.)))
