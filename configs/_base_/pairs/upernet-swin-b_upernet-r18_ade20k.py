_base_ = ['mmseg::upernet/upernet_r18_4xb4-160k_ade20k-512x512.py']
custom_imports = dict(imports=['mmseg_kd'])
# mmseg's config of this student forgets to what size a batch is padded and stops at its first step.
model = dict(
    type='mmseg_kd.DistilledEncoderDecoder',
    data_preprocessor=dict(size=(512, 512)),
    teacher=dict(
        config='mmseg::swin/swin-base-patch4-window12-in22k-384x384-pre_upernet_8xb2-160k_ade20k-512x512.py',
        checkpoint='https://mmassets.onedl.ai/mmsegmentation/v0.5/swin/upernet_swin_base_patch4_window12_512x512_160k_ade20k_pretrain_384x384_22K/upernet_swin_base_patch4_window12_512x512_160k_ade20k_pretrain_384x384_22K_20210531_125459-429057bf.pth'))
