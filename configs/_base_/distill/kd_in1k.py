supervised_weight = 0.5
distill = dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss', temperature=1., loss_weight=0.5)))
