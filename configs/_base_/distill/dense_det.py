# What a dense head says of each position, class by class; and, of GFL, of each edge of a box (localisation
# distillation).
distill = dict(
    binary_kl=dict(loss=dict(type='mmseg_kd.BinaryKLLoss', temperature=1.), on='logits'),
    ld=dict(loss=dict(type='mmseg_kd.KDLoss', temperature=2., loss_weight=0.25), on='box_logits'))
