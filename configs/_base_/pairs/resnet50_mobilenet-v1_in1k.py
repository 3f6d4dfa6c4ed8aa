_base_ = ['../../cls/vanilla/mobilenet-v1_8xb64_in1k.py']
model = dict(
    type='mmseg_kd.DistilledImageClassifier',
    teacher=dict(
        config='mmpretrain::resnet/resnet50_8xb32_in1k.py',
        checkpoint='https://download.openmmlab.com/mmclassification/v0/resnet/resnet50_8xb32_in1k_20210831-ea4938fc.pth'))
# What the papers set for this pair.
pair = dict(dkd=dict(beta=2.0), gdkd=dict(w1=2.0, w2=2.0), gdkd3=dict(w1=2.0, w2=2.0))
