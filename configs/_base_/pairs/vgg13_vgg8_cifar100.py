_base_ = ['../../cls/vanilla/vgg8_1xb64_cifar100.py']
model = dict(
    type='mmseg_kd.DistilledImageClassifier',
    teacher=dict(
        config='mmseg_kd::cls/vanilla/vgg13_1xb64_cifar100.py',
        checkpoint='work_dirs/vgg13_1xb64_cifar100/epoch_240.pth'))
# What the papers set for this pair.
pair = dict(dkd=dict(beta=6.0), gdkd=dict(w1=1.0, w2=6.0), gdkd3=dict(w1=1.0, w2=6.0))
