_base_ = ['../../cls/vanilla/resnet18_1xb64_cifar100.py']
model = dict(
    type='mmseg_kd.DistilledImageClassifier',
    teacher=dict(
        config='mmseg_kd::cls/vanilla/vit-s-p4_1xb64_cifar100.py',
        checkpoint='work_dirs/vit-s-p4_1xb64_cifar100/epoch_300.pth'))
