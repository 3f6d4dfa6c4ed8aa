distill = dict(
    dgkd=dict(
        loss=dict(
            type='mmseg_kd.DGKDLoss', alpha=1., beta=1., epsilon=6., temperature=4., softening=1e-8),
        schedule=dict(warmup=20, by_epoch=True)))
