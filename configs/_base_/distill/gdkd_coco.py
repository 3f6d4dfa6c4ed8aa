# Ours: the paper has no detector with a softmax over classes. Weights as for a pair of one kind on ImageNet.
distill = dict(gdkd=dict(loss=dict(type='mmseg_kd.GDKDLoss', k=5, w0=0.5, w1=1., w2=1., temperature=1.), on='logits'))
