# The settings of DKD's published detection code, for Faster R-CNN on COCO.
distill = dict(dkd=dict(loss=dict(type='mmseg_kd.DKDLoss', alpha=1., beta=0.25, temperature=1.), on='logits'))
