# Hinton et al., weighted as in the benchmarks of CRD and DKD.
supervised_weight = 0.1
distill = dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss', temperature=4., loss_weight=0.9)))
