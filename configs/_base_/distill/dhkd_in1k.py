dual_head = dict(kind='linear', init='torch')
distill = dict(
    dhkd=dict(
        loss=dict(type='mmseg_kd.BinaryKLNormLoss', temperature=2., loss_weight=0.1),
        on='aux_logits',
        # The published code stops when its epochs, counted from 1, are at 50: 49 epochs are distilled.
        schedule=dict(stop=49, by_epoch=True)))
