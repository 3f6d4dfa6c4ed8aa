# torchvision's schedule for Swin-T, as GDKD's code runs it (vit-gdkd); pictures are augmented as for the other pairs.
_base_ = [
    '../../_base_/classifiers/swin-t.py', '../../_base_/datasets/imagenet_bs64.py',
    '../../_base_/schedules/imagenet_adamw_300e.py', '../../_base_/default_runtime_cls.py'
]
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    paramwise_cfg=dict(
        custom_keys={
            '_delete_': True,
            '.absolute_pos_embed': dict(decay_mult=0.),
            '.relative_position_bias_table': dict(decay_mult=0.)
        }))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=20, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=20, convert_to_iter_based=True),
]
