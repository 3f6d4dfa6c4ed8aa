# Localisation distillation: the distributions over the edges of boxes. The paper has weight 0.25 at T = 10, and takes
# the mean over 17 bins where this loss is their sum.
distill = dict(ld=dict(loss=dict(type='mmseg_kd.KDLoss', temperature=10., loss_weight=0.25 / 17), on='box_logits'))
