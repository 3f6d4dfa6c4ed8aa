# The settings of GDKD's code for transformers (vit-gdkd).
distill = dict(gdkd3=dict(loss=dict(type='mmseg_kd.GDKD3Loss', k=5, w0=1., w1=1., w2=1., temperature=1.)))
