"""What the statistics of distillation cost: training steps without the hook, left alone by it, and watched by it.

    python tools/benchmarks/distill_statistics.py [--method dkd] [--rounds 40] [--device cpu] [--out statistics.json]

The quickstart's distilled student on random pictures. The three take turns, step by step, so that whatever else the
machine does hits them alike. The overhead of a run is that of its steps: one watched in ``--interval``, the others left
alone. Before, the hook must show that it changes no weight.
"""
import argparse
import copy
import json
import logging
import statistics
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from grad_align import ROOT, build_model, random_batch
from machine import describe_machine
from mmengine.optim import build_optim_wrapper

from mmseg_kd.engine import DistillStatisticsHook

OPTIMIZER = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4))
# Of the steps of each variant, which does the hook watch: no hook, none, all.
VARIANTS = dict(plain=None, left_alone=10**9, watched=1)
TARGET = 0.01


class Run:
    """A model that trains on one batch, with the hook at an interval or without it."""

    def __init__(self, model, interval: int | None):
        self.model = copy.deepcopy(model)
        self.optimizer = build_optim_wrapper(self.model, OPTIMIZER)
        self.hook = None if interval is None else DistillStatisticsHook(interval)
        self.runner = SimpleNamespace(model=self.model, iter=0, visualizer=SimpleNamespace(
            add_scalars=lambda values, step: None))

    def step(self, data: dict) -> None:
        if self.hook is not None:
            self.hook.before_train_iter(self.runner, self.runner.iter)
        self.model.train_step(data, self.optimizer)
        if self.hook is not None:
            self.hook.after_train_iter(self.runner, self.runner.iter)
        self.runner.iter += 1


def changes_nothing(model, data: dict) -> bool:
    """Whether two steps, watched or not, end with the same weights."""
    weights = []
    for interval in (None, 1):
        run = Run(model, interval)
        torch.manual_seed(1)
        run.step(data)
        run.step(data)
        weights.append(list(run.model.parameters()))
    return all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


def measure(model, data: dict, args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds per step of each variant, turn by turn."""
    runs = {name: Run(model, interval) for name, interval in VARIANTS.items()}
    synchronize = torch.cuda.synchronize if args.device.startswith('cuda') else lambda: None
    seconds = {name: [] for name in runs}
    for index in range(args.warmup + args.rounds):
        for name in (list(runs)[index % 3:] + list(runs)[:index % 3]):
            synchronize()
            start = time.perf_counter()
            runs[name].step(data)
            synchronize()
            if index >= args.warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def hook_calls(model, calls: int = 10000) -> float:
    """Seconds of the hook's calls around one step that it leaves alone, by themselves: too few to see in a step."""
    run = Run(model, 10**9)
    start = time.perf_counter()
    for _ in range(calls):
        run.hook.before_train_iter(run.runner, 0)
        run.hook.after_train_iter(run.runner, 0)
    return (time.perf_counter() - start) / calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--method', default='dkd', help='of configs/demo (default dkd)')
    parser.add_argument('--interval', type=int, default=50, help="the hook's (default 50)")
    parser.add_argument('--rounds', type=int, default=40)
    parser.add_argument('--warmup', type=int, default=5)
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--size', type=int, nargs=2, default=(64, 128), metavar=('HEIGHT', 'WIDTH'))
    parser.add_argument('--kind', choices=['linear', 'nonlinear'], default='linear', help='of the dual head, if any')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--out', type=Path)
    args = parser.parse_args()
    logging.disable(logging.INFO)
    config, = (ROOT / 'configs/demo').glob(f'{args.method}_*mini-cityscapes-64x128*.py')
    model, data = build_model(args, config), random_batch(args)
    if not changes_nothing(model, data):
        raise SystemExit('no figures: the hook changes the weights')
    seconds, calls = measure(model, data, args), hook_calls(model)
    plain = statistics.median(seconds['plain'])
    ratios = {name: statistics.median(value / base for value, base in zip(values, seconds['plain'], strict=True))
              for name, values in seconds.items()}
    # A watched step costs what it costs in one step of the interval; the two calls cost in all of them.
    overhead = (ratios['watched'] - 1) / args.interval + calls / plain
    result = dict(
        config=config.name, machine=describe_machine(args.device), batch_size=args.batch_size, size=list(args.size),
        interval=args.interval, rounds=args.rounds, median_s={n: statistics.median(v) for n, v in seconds.items()},
        median_of_ratios=ratios, seconds_of_calls=calls, overhead=overhead, target=TARGET)
    for name, values in seconds.items():
        low, median, high = statistics.quantiles(values, n=4)
        print(f'{name:>10}: {1000 * median:7.1f} ms, IQR {1000 * (high - low):5.1f}; x{ratios[name]:.3f}')
    print(f'calls around a step left alone: {1e6 * calls:.1f} us')
    print(f'overhead at one watched step in {args.interval}: {100 * overhead:.2f} % (target {100 * TARGET:.0f} %)')
    print(json.dumps(result))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1))


if __name__ == '__main__':
    main()
