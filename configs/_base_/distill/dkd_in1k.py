# beta is the pair's. The papers' warm-up of one epoch is none: its factor is 1 from the start.
distill = dict(dkd=dict(loss=dict(type='mmseg_kd.DKDLoss', alpha=1., beta=0.5, temperature=1.)))
