_base_ = ['../../seg/vanilla/pspnet_r18-d8_4xb4-160k_coco-stuff164k-512x512.py']
model = dict(
    type='mmseg_kd.DistilledEncoderDecoder',
    teacher=dict(
        config='mmseg::pspnet/pspnet_r101-d8_4xb4-160k_coco-stuff164k-512x512.py',
        checkpoint='https://mmassets.onedl.ai/mmsegmentation/v0.5/pspnet/pspnet_r101-d8_512x512_4x4_160k_coco-stuff164k/pspnet_r101-d8_512x512_4x4_160k_coco-stuff164k_20210707_152004-4af9621b.pth'))
