# The settings of GDKD's published detection code (detectron2-gdkd): first, second and rest, of which only the rest has
# something within.
distill = dict(
    gdkd3=dict(loss=dict(type='mmseg_kd.GDKD3Loss', k=2, w0=1., w1=0., w2=0.25, temperature=1.), on='logits'))
