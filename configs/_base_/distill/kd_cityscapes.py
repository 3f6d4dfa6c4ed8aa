# As in GDKD's segmentation code: all pixels, also those without a label, at the head's own size; auxiliary head 0.4.
distill = dict(
    kd=dict(loss=dict(type='mmseg_kd.KDLoss', temperature=1.), positions='all', size='head'),
    auxiliary=dict(
        loss=dict(type='mmseg_kd.KDLoss', temperature=1., loss_weight=0.4),
        on='auxiliary_head',
        positions='all',
        size='head'))
