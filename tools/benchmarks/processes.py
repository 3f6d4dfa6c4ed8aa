"""Seconds per distilled training step of one joined batch, shared by 1, 2 and 4 gloo processes of one thread each.

    OMP_NUM_THREADS=1 python tools/benchmarks/processes.py [--batch 8] [--size 64 128] [--steps 15]

Processes are forked; a step is DDP's, with plain KD from the demo's teacher (random weights) to the demo's student, and
its time is that of the slowest process. Prints median and quartiles as JSON lines.
"""
import argparse
import json
import os
import socket
import sys
import time

import torch
import torch.distributed
import torch.multiprocessing
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

import mmseg_kd  # noqa: F401

CONFIG = 'configs/demo/kd_pspnet-r18-w32-d8_fcn-r18-w16-d8_mini-cityscapes-64x128.py'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Seconds per step in several processes')
    parser.add_argument('--processes', type=int, nargs='+', default=[1, 2, 4])
    parser.add_argument('--batch', type=int, default=8, help='images of the joined batch (default %(default)s)')
    parser.add_argument('--size', type=int, nargs=2, default=[64, 128], help='default 64 128')
    parser.add_argument('--steps', type=int, default=15, help='timed steps (default %(default)s)')
    return parser.parse_args()


def images(number: int, size: list[int]) -> dict:
    """A batch of random pictures and labels."""
    samples = []
    for _ in range(number):
        sample = SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 19, (1, *size))))
        sample.set_metainfo(dict(img_shape=tuple(size), ori_shape=tuple(size)))
        samples.append(sample)
    return dict(inputs=[torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in samples], data_samples=samples)


def one_process(rank: int, processes: int, port: int, args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank),
                      WORLD_SIZE=str(processes))
    torch.distributed.init_process_group('gloo')
    torch.manual_seed(0)
    init_default_scope('mmseg')
    cfg = Config.fromfile(CONFIG)
    del cfg.model.teacher['checkpoint']
    model = MODELS.build(cfg.model)
    model.init_weights()
    trained = MMDistributedDataParallel(model.train(), device_ids=None, broadcast_buffers=False)
    optimizer = build_optim_wrapper(trained, dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01)))
    data = images(args.batch // processes, args.size)
    times = []
    for _ in range(args.steps + 3):
        torch.distributed.barrier()
        start = time.perf_counter()
        trained.train_step(data, optimizer)
        torch.distributed.barrier()
        times.append(time.perf_counter() - start)
    if rank == 0:
        low, median, high = torch.tensor(times[3:]).quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
        print(json.dumps(dict(processes=processes, seconds=round(median, 4), quartiles=[round(low, 4), round(high, 4)],
                              images_per_second=round(args.batch / median, 1))), flush=True)
    torch.distributed.barrier()
    # All is said: tearing the interpreter down beside gloo's threads now and then never ends.
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    args = parse_args()
    print(json.dumps(dict(vars(args), torch=torch.__version__, cores=os.cpu_count())), flush=True)
    for processes in args.processes:
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            port = probe.getsockname()[1]
        torch.multiprocessing.start_processes(one_process, (processes, port, args), nprocs=processes,
                                              start_method='fork')


if __name__ == '__main__':
    main()
