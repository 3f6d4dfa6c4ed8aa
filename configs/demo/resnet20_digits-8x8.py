_base_ = ['resnet32x4_digits-8x8.py']
model = dict(backbone=dict(depth=20, width_factor=1, stem_channels=16), head=dict(in_channels=64))
