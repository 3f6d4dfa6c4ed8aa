_base_ = ['../../cls/vanilla/resnet18_1xb64_cub.py']
model = dict(
    type='mmseg_kd.DistilledImageClassifier',
    teacher=dict(
        config='mmseg_kd::cls/vanilla/resnet34_1xb64_cub.py',
        checkpoint='work_dirs/resnet34_1xb64_cub/epoch_100.pth'))
# What the papers set for this pair.
pair = dict(dkd=dict(beta=0.5), gdkd=dict(w1=1.0, w2=1.0), gdkd3=dict(w1=1.0, w2=1.0))
