_base_ = [
    '../../_base_/pairs/resnet32x4_resnet8x4_cifar100.py', '../../_base_/distill/dhkd_cifar100.py',
    '../../_base_/distill/reviewkd_cifar100.py'
]
model = dict(dual_head=_base_.dual_head, distill=dict(**_base_.distill, review=_base_.review))
optim_wrapper = dict(type='mmseg_kd.GradAlignOptimWrapper', scope='all')
