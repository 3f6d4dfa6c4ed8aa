"""Distilled training in several forked gloo processes and in one; test_many_processes.py starts it.

    python many_processes.py FOLDER

It imports everything once and forks, which costs a second where a fresh interpreter costs six. For every number of
processes and every case a process writes its weights after three steps to FOLDER; so does one process on the joined
batch.
"""
import os
import socket
import sys
from pathlib import Path

import torch
import torch.distributed
import torch.multiprocessing
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from tiny import batch, build, distilled, segmentor
from torch import nn

from mmseg_kd.engine.step_statistics import StepStatistics

PROCESSES = (2, 4)


def _logits(**loss):
    return dict(distill=dict(term=dict(loss=loss)))


_DHKD = dict(distill=dict(dhkd=dict(loss=dict(type='mmseg_kd.BinaryKLNormLoss'), on='aux_logits')),
             dual_head=dict(kind='linear'))
#: Model settings, and settings of the optimizer wrapper.
CASES = {
    'kd': (_logits(type='mmseg_kd.KDLoss'), {}),
    'dkd': (_logits(type='mmseg_kd.DKDLoss'), {}),
    'gdkd': (_logits(type='mmseg_kd.GDKDLoss'), {}),
    'dgkd': (_logits(type='mmseg_kd.DGKDLoss'), {}),
    'dgkd-cap': (_logits(type='mmseg_kd.DGKDLoss', cap=1.), {}),
    'cwd': (_logits(type='mmseg_kd.CWDLoss', loss_weight=50.), {}),
    'dhkd-parameters': (_DHKD, dict(type='mmseg_kd.GradAlignOptimWrapper')),
    'dhkd-features': (_DHKD, dict(type='mmseg_kd.GradAlignOptimWrapper', level='features')),
}


def four_images(seed):
    """Four images of which one has all its pixels labelled, one a few, one none and one half of them."""
    data = batch(size=4, seed=seed)
    for sample, rows in zip(data['data_samples'], (0, 29, 32, 16), strict=True):
        sample.gt_sem_seg.data[:, 3:3 + rows] = 255
    return data


def train(model_settings, wrapper, part=slice(None), processes=1):
    """Three steps with frozen batch statistics; the weights, and the statistics of the last step."""
    student = segmentor(dropout_ratio=0.)
    # mmseg divides this one by all pixels, labelled or not, so that its mean is that of the joined batch.
    student['decode_head']['loss_decode'] = dict(type='CrossEntropyLoss', avg_non_ignore=False)
    model = build(distilled(student, segmentor(16, 'PSPHead')) | model_settings).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    optimizer = build_optim_wrapper(
        model, dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.02, momentum=0.9)) | wrapper)
    trained = model if processes == 1 else MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False)
    for seed in range(3):
        data = four_images(seed)
        watched = StepStatistics(model)
        trained.train_step({key: value[part] for key, value in data.items()}, optimizer)
        statistics = watched.close()
    return {name: value.detach().clone() for name, value in model.named_parameters()}, statistics


def one_process(rank, processes, folder, port):
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank),
                      WORLD_SIZE=str(processes))
    torch.distributed.init_process_group('gloo')
    size = 4 // processes
    for name, case in CASES.items():
        trained = train(*case, slice(rank * size, (rank + 1) * size), processes)
        torch.save(trained, folder / f'{name}_{processes}_{rank}.pth')
    torch.distributed.destroy_process_group()


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


if __name__ == '__main__':
    folder = Path(sys.argv[1])
    for processes in PROCESSES:
        torch.multiprocessing.start_processes(one_process, (processes, folder, free_port()), nprocs=processes,
                                              start_method='fork')
    # The last of all: a process that has gone backward cannot be forked.
    for name, case in CASES.items():
        torch.save(train(*case), folder / f'{name}_1.pth')
