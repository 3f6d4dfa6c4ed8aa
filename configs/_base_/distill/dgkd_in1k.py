# As in DGKD's code. Softened, a batch of 512 images of 1000 classes leaves hardly anything of the coupling term; with
# `cap=1.` in the place of `softening` it counts, and cannot outweigh DKD.
distill = dict(
    dgkd=dict(
        loss=dict(type='mmseg_kd.DGKDLoss', alpha=1., beta=1., epsilon=6., temperature=4., softening=1e-8),
        schedule=dict(warmup=20, by_epoch=True)))
