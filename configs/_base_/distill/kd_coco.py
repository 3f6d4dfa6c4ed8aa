# Of the proposals of the student.
distill = dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss', temperature=1.), on='logits'))
