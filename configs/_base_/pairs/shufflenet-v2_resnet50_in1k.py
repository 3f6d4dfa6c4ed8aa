_base_ = ['../../cls/vanilla/resnet50_8xb64_in1k.py']
model = dict(
    type='mmseg_kd.DistilledImageClassifier',
    teacher=dict(
        config='mmpretrain::shufflenet_v2/shufflenet-v2-1x_16xb64_in1k.py',
        checkpoint='https://download.openmmlab.com/mmclassification/v0/shufflenet_v2/shufflenet_v2_batch1024_imagenet_20200812-5bf4721e.pth'))
