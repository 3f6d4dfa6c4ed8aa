distill = dict(dkd=dict(loss=dict(type='mmseg_kd.DKDLoss', alpha=1., beta=2., temperature=1., loss_weight=3.)))
