_base_ = ['mmseg::pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py']
custom_imports = dict(imports=['mmseg_kd'])
model = dict(
    type='mmseg_kd.DistilledEncoderDecoder',
    teacher=dict(
        config='mmseg::pidnet/pidnet-l_2xb6-120k_1024x1024-cityscapes.py',
        checkpoint='https://mmassets.onedl.ai/mmsegmentation/v0.5/pidnet/pidnet-l_2xb6-120k_1024x1024-cityscapes/pidnet-l_2xb6-120k_1024x1024-cityscapes_20230303_114514-0783ca6b.pth'))
# What ReviewKD reads, strides 8 to 64. The backbone's own outputs are other ones in training than in inference.
stages = [
    'backbone.stem', 'backbone.i_branch_layers.0', 'backbone.i_branch_layers.1', 'backbone.i_branch_layers.2']
