# GDKD's segmentation code has no GDKD3: k, weights and places are those of its GDKD.
distill = dict(
    gdkd3=dict(
        loss=dict(type='mmseg_kd.GDKD3Loss', k=3, w0=1., w1=1., w2=2., temperature=1.),
        positions='all',
        size='head'),
    auxiliary=dict(
        loss=dict(type='mmseg_kd.GDKD3Loss', k=3, w0=1., w1=1., w2=2., temperature=1., loss_weight=0.4),
        on='auxiliary_head',
        positions='all',
        size='head'))
