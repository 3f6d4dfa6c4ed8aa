# The scores and the masks of the proposals.
distill = dict(
    dkd=dict(loss=dict(type='mmseg_kd.DKDLoss', alpha=1., beta=0.25, temperature=1.), on='logits'),
    masks=dict(loss=dict(type='mmseg_kd.BinaryKLLoss', temperature=1.), on='mask_logits'))
