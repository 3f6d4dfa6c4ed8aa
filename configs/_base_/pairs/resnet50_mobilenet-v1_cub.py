_base_ = ['../../cls/vanilla/mobilenet-v1_1xb64_cub.py']
model = dict(
    type='mmseg_kd.DistilledImageClassifier',
    teacher=dict(
        config='mmseg_kd::cls/vanilla/resnet50_1xb64_cub.py',
        checkpoint='work_dirs/resnet50_1xb64_cub/epoch_100.pth'))
# What the papers set for this pair.
pair = dict(dkd=dict(beta=2.0), gdkd=dict(w1=2.0, w2=2.0), gdkd3=dict(w1=2.0, w2=2.0))
