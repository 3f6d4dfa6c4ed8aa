"""A small, real mmseg student for every decode head that classifies through ``conv_seg``."""
from tiny import segmentor

NORM = dict(type='BN', requires_grad=True)
CE = dict(type='CrossEntropyLoss', avg_non_ignore=True)
# These heads call their losses without the ignore label, which this loss knows by itself.
OHEM = dict(type='OhemCrossEntropy', thres=0.9, min_kept=10)
PYRAMID = dict(in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3], dilated=False)

# Settings of the head and, where it needs another one, its backbone. Feature maps have 8, 16, 32 and 64 channels.
HEADS = dict(
    ANNHead=dict(in_channels=[32, 64], in_index=[2, 3], project_channels=8, key_pool_scales=(1, 2)),
    APCHead=dict(pool_scales=(1, 2)),
    ASPPHead=dict(dilations=(1, 2)),
    CCHead=dict(num_convs=2),
    DAHead=dict(pam_channels=4),
    DDRHead=dict(
        in_channels=32, loss_decode=[OHEM, OHEM],
        backbone=dict(type='DDRNet', channels=8, ppm_channels=8, norm_cfg=NORM)),
    DMHead=dict(filter_sizes=(1, 3)),
    DNLHead=dict(),
    DPTHead=dict(
        in_channels=[16] * 4, in_index=[0, 1, 2, 3], embed_dims=16, post_process_channels=[4, 8, 8, 8],
        input_transform='multiple_select',
        backbone=dict(type='VisionTransformer', img_size=(32, 64), patch_size=16, embed_dims=16, num_layers=4,
                      num_heads=2, out_indices=(0, 1, 2, 3), final_norm=False, with_cls_token=True,
                      output_cls_token=True)),
    DepthwiseSeparableASPPHead=dict(dilations=(1, 2), c1_in_channels=8, c1_channels=4),
    DepthwiseSeparableFCNHead=dict(num_convs=1, concat_input=False),
    EMAHead=dict(ema_channels=8, num_bases=4, num_stages=2),
    EncHead=dict(in_channels=[16, 32, 64], in_index=[1, 2, 3], num_codes=4,
                 loss_se_decode=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=0.2)),
    FCNHead=dict(num_convs=1, concat_input=False),
    FPNHead=dict(feature_strides=[4, 8, 16, 32], **PYRAMID),
    GCHead=dict(),
    ISAHead=dict(isa_channels=8, down_factor=(2, 2)),
    # Its average pooling is 49 wide, at stride 8.
    LRASPPHead=dict(in_channels=(8, 16, 64), in_index=(0, 1, 3), input_transform='multiple_select',
                    branch_channels=(4, 8), size=(392, 392)),
    LightHamHead=dict(in_channels=[16, 32, 64], in_index=[1, 2, 3], ham_channels=8, ham_kwargs=dict(MD_R=4)),
    NLHead=dict(),
    OCRHead=dict(ocr_channels=8, cascade=True),
    PIDHead=dict(
        in_channels=32, loss_decode=[CE, OHEM, dict(type='BoundaryLoss'), OHEM],
        backbone=dict(type='PIDNet', channels=8, ppm_channels=8, num_stem_blocks=2, num_branch_blocks=2,
                      norm_cfg=NORM)),
    PSAHead=dict(mask_size=(4, 8), psa_type='collect'),
    PSPHead=dict(pool_scales=(1, 2)),
    SETRMLAHead=dict(in_channels=[16, 16, 16, 16], in_index=[0, 1, 2, 3], mla_channels=4, up_scale=2, channels=16,
                     backbone=dict(type='VisionTransformer', img_size=(32, 64), patch_size=16, embed_dims=16,
                                   num_layers=4, num_heads=2, out_indices=(0, 1, 2, 3))),
    SETRUPHead=dict(num_convs=2, up_scale=2, kernel_size=3),
    # Finds boundaries, two classes.
    STDCHead=dict(num_convs=1, concat_input=False, num_classes=2, boundary_threshold=0.1,
                  loss_decode=[dict(type='CrossEntropyLoss', use_sigmoid=True, loss_name='loss_ce'),
                               dict(type='DiceLoss', loss_name='loss_dice')]),
    SegformerHead=PYRAMID,
    UPerHead=dict(pool_scales=(1, 2), **PYRAMID),
)


def student(head):
    """Config of the student and the size of its images."""
    settings = dict(HEADS[head])
    size = settings.pop('size', (32, 64))
    cascade = settings.pop('cascade', False)
    backbone = settings.pop('backbone', None)
    model = segmentor(head='FCNHead', dilated=settings.pop('dilated', True))
    # The FCN head's own settings give way; what every head has stays.
    for name in ('num_convs', 'concat_input'):
        del model['decode_head'][name]
    model['decode_head'] |= dict(type=head) | settings
    if backbone is not None:
        model['backbone'] = backbone
    if cascade:
        first = segmentor()['decode_head']
        model |= dict(type='CascadeEncoderDecoder', num_stages=2, decode_head=[first, model['decode_head']])
    return model, size
