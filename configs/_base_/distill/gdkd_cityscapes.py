# As in GDKD's segmentation code: all pixels, also those without a label, at the head's own size; auxiliary head 0.4.
distill = dict(
    gdkd=dict(
        loss=dict(type='mmseg_kd.GDKDLoss', k=3, w0=1., w1=1., w2=2., temperature=1.),
        positions='all',
        size='head'),
    auxiliary=dict(
        loss=dict(type='mmseg_kd.GDKDLoss', k=3, w0=1., w1=1., w2=2., temperature=1., loss_weight=0.4),
        on='auxiliary_head',
        positions='all',
        size='head'))
