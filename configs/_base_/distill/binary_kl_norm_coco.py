# DHKD's loss for the second classifier, here where the teacher sees an object.
distill = dict(
    binary_kl_norm=dict(
        loss=dict(type='mmseg_kd.BinaryKLNormLoss', temperature=2., loss_weight=0.1), on='logits', weight='confidence'))
