_base_ = ['../../cls/vanilla/vit-s-p4_1xb64_cifar100.py']
model = dict(
    type='mmseg_kd.DistilledImageClassifier',
    teacher=dict(
        config='mmseg_kd::cls/vanilla/shufflenet-v2_1xb64_cifar100.py',
        checkpoint='work_dirs/shufflenet-v2_1xb64_cifar100/epoch_240.pth'))
