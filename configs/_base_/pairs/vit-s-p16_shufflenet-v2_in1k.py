_base_ = ['../../cls/vanilla/shufflenet-v2_8xb64_in1k.py']
model = dict(
    type='mmseg_kd.DistilledImageClassifier',
    teacher=dict(
        config='mmpretrain::deit/deit-small_4xb256_in1k.py',
        checkpoint='https://download.openmmlab.com/mmclassification/v0/deit/deit-small_pt-4xb256_in1k_20220218-9425b9bb.pth'))
