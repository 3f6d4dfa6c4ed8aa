"""One of two processes that train the same student on halves of a batch; test_grad_align.py starts it."""
import sys

import torch
import torch.distributed
from aligning import student
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from tiny import batch

CASES = dict(
    shared=dict(),
    all=dict(scope='all', clip_grad=dict(max_norm=0.5)),
    accumulated=dict(accumulative_counts=2),
    features=dict(level='features', clip_grad=dict(max_norm=0.5)))


def train(settings, whole=False, rank=0):
    """Three updates; the weights and which of them met a conflict."""
    model = student(batch_norm=False, dropout_ratio=0.)
    optimizer = build_optim_wrapper(model, dict(
        type='mmseg_kd.GradAlignOptimWrapper', optimizer=dict(type='SGD', lr=0.02, momentum=0.9),
        paramwise_cfg=dict(custom_keys=dict(decode_head=dict(lr_mult=2.)))) | dict(settings))
    hub = optimizer.message_hub
    hub.log_scalars.pop('train/align_conflict', None)
    trained = model if whole else MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False)
    for seed in range(3 * optimizer._accumulative_counts):
        data = batch(size=4, seed=seed)
        if not whole:
            part = slice(2 * rank, 2 * rank + 2)
            data = dict(inputs=data['inputs'][part], data_samples=data['data_samples'][part])
        trained.train_step(data, optimizer)
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    return weights, hub.get_scalar('train/align_conflict').data[0].tolist()


if __name__ == '__main__':
    torch.distributed.init_process_group('gloo')
    rank = torch.distributed.get_rank()
    for name, settings in CASES.items():
        weights, conflicts = train(settings, rank=rank)
        torch.save(dict(weights=weights, conflicts=conflicts), f'{sys.argv[1]}/{name}_{rank}.pth')
    torch.distributed.destroy_process_group()
