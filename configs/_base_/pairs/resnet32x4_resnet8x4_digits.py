_base_ = ['../../demo/resnet8x4_digits-8x8.py']
model = dict(
    type='mmseg_kd.DistilledImageClassifier',
    teacher=dict(
        config='mmseg_kd::demo/resnet32x4_digits-8x8.py',
        checkpoint='work_dirs/resnet32x4_digits-8x8/epoch_20.pth'))
# What the papers set for resnet32x4 and resnet8x4 on CIFAR-100.
pair = dict(dkd=dict(beta=8.), gdkd=dict(w1=2., w2=8.), gdkd3=dict(w1=2., w2=8.))
