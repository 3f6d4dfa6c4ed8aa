# Localisation distillation by GDKD, with the settings of its published code (mmdet-gdkd).
distill = dict(
    ld=dict(
        loss=dict(type='mmseg_kd.GDKDLoss', k=5, w0=1., w1=1., w2=2., temperature=4., loss_weight=0.5),
        on='box_logits'))
