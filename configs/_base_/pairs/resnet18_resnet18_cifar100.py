_base_ = ['../../cls/vanilla/resnet18_1xb64_cifar100.py']
model = dict(
    type='mmseg_kd.DistilledImageClassifier',
    teacher=dict(
        config='mmseg_kd::cls/vanilla/resnet18_1xb64_cifar100.py',
        checkpoint='work_dirs/resnet18_1xb64_cifar100/epoch_240.pth'))
