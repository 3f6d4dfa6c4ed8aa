distill = dict(cwd=dict(loss=dict(type='mmseg_kd.CWDLoss', temperature=4., loss_weight=3.)))
