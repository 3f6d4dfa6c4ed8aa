_base_ = ['mmseg::segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py']
custom_imports = dict(imports=['mmseg_kd'])
model = dict(
    type='mmseg_kd.DistilledEncoderDecoder',
    teacher=dict(
        config='mmseg::segformer/segformer_mit-b5_8xb1-160k_cityscapes-1024x1024.py',
        checkpoint='https://mmassets.onedl.ai/mmsegmentation/v0.5/segformer/segformer_mit-b5_8x1_1024x1024_160k_cityscapes/segformer_mit-b5_8x1_1024x1024_160k_cityscapes_20211206_072934-87a052ec.pth'))
