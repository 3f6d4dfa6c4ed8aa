dual_head = dict(kind='linear')
distill = dict(
    dhkd=dict(
        loss=dict(type='mmseg_kd.BinaryKLNormLoss', temperature=2., loss_weight=0.1),
        on='aux_logits',
        schedule=dict(stop=50, by_epoch=True)))
