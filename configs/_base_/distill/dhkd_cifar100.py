dual_head = dict(kind='nonlinear', init='torch')
distill = dict(dhkd=dict(loss=dict(type='mmseg_kd.BinaryKLNormLoss', temperature=2., loss_weight=1.), on='aux_logits'))
