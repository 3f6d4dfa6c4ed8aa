# As in GDKD's segmentation code: labelled pixels, at the head's own size; auxiliary head 0.4.
distill = dict(
    dkd=dict(loss=dict(type='mmseg_kd.DKDLoss', alpha=1., beta=2., temperature=1.), size='head'),
    auxiliary=dict(
        loss=dict(type='mmseg_kd.DKDLoss', alpha=1., beta=2., temperature=1., loss_weight=0.4),
        on='auxiliary_head',
        size='head'))
