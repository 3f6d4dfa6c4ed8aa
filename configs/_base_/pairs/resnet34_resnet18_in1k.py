_base_ = ['../../cls/vanilla/resnet18_8xb64_in1k.py']
model = dict(
    type='mmseg_kd.DistilledImageClassifier',
    teacher=dict(
        config='mmpretrain::resnet/resnet34_8xb32_in1k.py',
        checkpoint='https://download.openmmlab.com/mmclassification/v0/resnet/resnet34_8xb32_in1k_20210831-f257d4e6.pth'))
# What the papers set for this pair.
pair = dict(dkd=dict(beta=0.5), gdkd=dict(w1=1.0, w2=1.0), gdkd3=dict(w1=1.0, w2=1.0))
