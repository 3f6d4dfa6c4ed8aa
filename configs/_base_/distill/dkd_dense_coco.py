# DKD over classes and background, at the positions with an object.
distill = dict(
    dkd=dict(loss=dict(type='mmseg_kd.DKDLoss', alpha=1., beta=0.25, temperature=1.), on='logits', weight='foreground'))
