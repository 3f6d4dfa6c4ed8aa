# DHKD for detectors: the second classifier, where the teacher sees an object. The paper has none; weight as ImageNet.
dual_head = dict(kind='linear')
distill = dict(
    dhkd=dict(
        loss=dict(type='mmseg_kd.BinaryKLNormLoss', temperature=2., loss_weight=0.1), on='aux_logits',
        weight='confidence'))
