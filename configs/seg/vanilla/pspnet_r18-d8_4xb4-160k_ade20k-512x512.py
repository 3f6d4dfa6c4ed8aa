# mmseg has this config for ResNet-50 and 101; the sizes are those of its PSPNet with ResNet-18 on Cityscapes.
_base_ = ['mmseg::pspnet/pspnet_r50-d8_4xb4-160k_ade20k-512x512.py']
custom_imports = dict(imports=['mmseg_kd'])
model = dict(
    pretrained='open-mmlab://resnet18_v1c',
    backbone=dict(depth=18),
    decode_head=dict(in_channels=512, channels=128),
    auxiliary_head=dict(in_channels=256, channels=64))
