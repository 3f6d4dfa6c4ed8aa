# The settings of GDKD's published detection code (detectron2-gdkd), for Faster R-CNN on COCO.
distill = dict(
    gdkd=dict(loss=dict(type='mmseg_kd.GDKDLoss', k=5, w0=1., w1=0.125, w2=0.25, temperature=1.), on='logits'))
