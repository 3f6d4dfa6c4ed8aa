# Localisation distillation by GDKD; weight and temperature are those of LD.
distill = dict(
    ld=dict(
        loss=dict(type='mmseg_kd.GDKDLoss', k=5, w0=1., w1=1., w2=1., temperature=10., loss_weight=0.25 / 17),
        on='box_logits'))
