"""Time and memory of the losses' operators beside the usual formulation, the plain form and ``torch.compile`` of it.

    python tools/benchmarks/operators.py [--losses kd dkd] [--shapes 2x19x512x1024] [--stride 1 8] [--out FILE]
    python tools/benchmarks/operators.py --device cuda

Forward and backward, on logits of one resolution and (``--stride``) on small logits against labels of that size. All
variants take turns, round by round, so that whatever else the machine does hits them alike. No speed is printed unless
the operator first agrees with the plain form in float64. Memory is what one forward and backward pass needs at its peak
beside its inputs; on the CPU in a process of its own.

On a GPU a copy of as many bytes as the operator must move (two maps read, one written) takes its turn too, and so does
the operator as a replayed CUDA graph, which is what the device does without waiting for Python.
"""
import argparse
import functools
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

import torch  # noqa: E402
from machine import describe_machine  # noqa: E402
from resident import EXACT, extra_peak  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from usual_formulation import USUAL  # noqa: E402

from mmseg_kd import functional  # noqa: E402
from mmseg_kd.functional import Upsampled  # noqa: E402

OURS = dict(
    kd=functional.kd_loss, dkd=lambda *args, **kwargs: functional.dkd_loss(*args, alpha=1., beta=8., **kwargs),
    gdkd=lambda *args, **kwargs: functional.gdkd_loss(*args, k=5, w0=1., w1=2., w2=8., **kwargs),
    binary_kl_norm=functional.binary_kl_norm_loss, cwd=functional.cwd_loss, dgkd=functional.dgkd_loss)
#: Losses whose operators have more to do than another's, which takes its turn beside them.
BESIDE = dict(cwd='kd', dgkd='dkd')
TEMPERATURE = 4.
DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16)
#: What an operator may differ by from the plain form in float64: rounding of the gradient to its type.
TOLERANCE = dict(float32=1e-5, bfloat16=1.01 * 2.**-8)
#: By the kind of device: shapes that fill it, types, losses and the ones among them that are compiled, rounds.
DEFAULTS = dict(
    cpu=dict(shapes=['2x19x512x1024', '1x150x512x512'], dtypes=['float32'], losses=list(OURS),
             compiled=['kd', 'dkd', 'gdkd', 'binary_kl_norm'], rounds=5),
    cuda=dict(shapes=['8x19x512x1024', '4x150x512x512', '4x171x512x512'], dtypes=['float32', 'bfloat16'],
              losses=['dkd', 'gdkd', 'binary_kl_norm'], compiled=['dkd'], rounds=15))


def resized(logits: Tensor, size) -> Tensor:
    return F.interpolate(logits, size=tuple(size), mode='bilinear', align_corners=False)


def variants(name: str, stride: int, with_compile: bool) -> dict:
    """Ways to compute one loss; each takes (student, teacher, target)."""
    usual, ours = USUAL[name], OURS[name]

    def operator(student, teacher, target):
        return ours(student, teacher, target, temperature=TEMPERATURE)

    def plain(student, teacher, target):
        os.environ['MMSEG_KD_KERNELS'] = 'naive'
        try:
            return ours(student, teacher, target, temperature=TEMPERATURE)
        finally:
            del os.environ['MMSEG_KD_KERNELS']

    if stride == 1:
        ways = dict(operator=operator, plain=plain,
                    usual=lambda student, teacher, target: usual(student, teacher, target, TEMPERATURE))
        if with_compile:
            # Inside a compiled graph the losses are their plain forms.
            ways['compiled plain'] = torch.compile(operator, fullgraph=True, dynamic=False)
        return ways

    def at(target):
        return target.shape[1:]

    return {
        'upsampling operator': lambda z, v, t: operator(Upsampled(z, tuple(at(t))), Upsampled(v, tuple(at(t))), t),
        'interpolate + operator': lambda z, v, t: operator(resized(z, at(t)), resized(v, at(t)), t),
        'interpolate + usual': lambda z, v, t: usual(resized(z, at(t)), resized(v, at(t)), t, TEMPERATURE)}


def problem(shape: tuple, stride: int, device: str, dtype: str) -> tuple[Tensor, Tensor, Tensor]:
    """Random logits, as small as ``stride`` says, and labels without an ignored one, which the usual code cannot."""
    source = dict(generator=torch.Generator(device).manual_seed(0), device=device)
    number, classes, height, width = shape
    small = number, classes, height // stride, width // stride
    student, teacher = (3 * torch.randn(small, **source) for _ in range(2))
    target = torch.randint(classes, (number, height, width), **source)
    student, teacher = (logits.to(DTYPES[dtype]) for logits in (student, teacher))
    return student.requires_grad_(), teacher, target


def step(way, student: Tensor, teacher: Tensor, target: Tensor) -> None:
    student.grad = None
    way(student, teacher, target).backward()


def difference(name: str, shape: tuple, stride: int, device: str, dtype: str) -> float:
    """Largest relative difference between the operator and the plain form in float64, of value and gradient."""
    student, teacher, target = problem((2, shape[1], 64, 96), stride, device, dtype)
    way = next(iter(variants(name, stride, False).values()))
    value = way(student, teacher, target)
    gradient, = torch.autograd.grad(value, student)
    student, teacher = student.detach().double().requires_grad_(), teacher.double()
    full = [logits if stride == 1 else resized(logits, target.shape[1:]) for logits in (student, teacher)]
    expected = OURS[name](*full, target, temperature=TEMPERATURE)
    wanted, = torch.autograd.grad(expected, student)
    return max(abs(value.item() / expected.item() - 1),
               ((gradient - wanted).abs().max() / wanted.abs().max()).item())


def peak_bytes(name: str, shape: tuple, stride: int, way: str) -> int:
    """Bytes that one step of a variant needs beside its inputs, on the CPU: peak of the resident memory."""
    student, teacher, target = problem(shape, stride, 'cpu', 'float32')
    run = variants(name, stride, way == 'compiled plain')[way]
    warm = (student, teacher, target)
    if stride <= 16:
        warm = problem((1, *shape[1:2], 16, 32), stride, 'cpu', 'float32')
    step(run, *warm)
    return extra_peak(lambda: step(run, student, teacher, target))


def memory(name: str, shape: tuple, stride: int, way: str) -> int | None:
    """:func:`peak_bytes` in a process of its own; None where the variant does not run."""
    command = [sys.executable, '-W', 'ignore', __file__, '--memory-of', way, '--losses', name, '--stride', str(stride),
               '--shapes', 'x'.join(map(str, shape))]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **EXACT})
    return int(done.stdout.split()[-1]) if done.returncode == 0 else None


def memory_on_gpu(run, tensors: tuple) -> int:
    """Bytes that one step of a variant needs beside its inputs, at its peak."""
    tensors[0].grad = None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(run, *tensors)
    return torch.cuda.max_memory_allocated() - before


def replayed(run, tensors: tuple):
    """A step as a CUDA graph; a function that replays it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(run, *tensors)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    tensors[0].grad = None
    with torch.cuda.graph(graph):
        run(*tensors).backward()
    return lambda *_: graph.replay()


def seconds_of(run, tensors: tuple, on_gpu: bool) -> float:
    """One turn; on a GPU between two of its events, with nothing waiting before."""
    if not on_gpu:
        started = time.perf_counter()
        run(*tensors)
        return time.perf_counter() - started
    torch.cuda.synchronize()
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    run(*tensors)
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1000


def turns(name: str, shape: tuple, stride: int, dtype: str, args: argparse.Namespace, tensors: tuple) -> dict:
    """What takes turns: functions of (student, teacher, target)."""
    ways = variants(name, stride, name in args.compiled)
    runs = {way: functools.partial(step, run) for way, run in ways.items()}
    if name in BESIDE:
        other = variants(BESIDE[name], stride, False)
        runs[f"{BESIDE[name]}'s operator"] = functools.partial(step, next(iter(other.values())))
    if not args.device.startswith('cuda'):
        return runs
    first = next(iter(ways))
    # Warm first: a kernel is not compiled while a graph is recorded.
    step(ways[first], *tensors)
    graph = replayed(ways[first], [each.detach().clone().requires_grad_(each.requires_grad) for each in tensors])
    runs = {first: runs.pop(first), f'{first}, graph': graph, **runs}
    if stride == 1:
        entries = 3 * tensors[0].numel() // 2
        source, copy = (torch.empty(entries, dtype=DTYPES[dtype], device=args.device) for _ in range(2))
        runs['copy of 3 maps'] = lambda *_: copy.copy_(source)
    return runs


def measure(name: str, shape: tuple, stride: int, dtype: str, args: argparse.Namespace) -> dict:
    """Seconds and bytes of every variant of one loss at one shape."""
    on_gpu = args.device.startswith('cuda')
    tensors = problem(shape, stride, args.device, dtype)
    runs = turns(name, shape, stride, dtype, args, tensors)
    seconds = {way: [] for way in runs}
    for way, run in runs.items():
        started = time.perf_counter()
        seconds_of(run, tensors, on_gpu)
        print(f'  {way}: first step {time.perf_counter() - started:.1f} s', flush=True)
    for _ in range(args.rounds):
        for way, run in runs.items():
            seconds[way].append(seconds_of(run, tensors, on_gpu))
    logit_map = DTYPES[dtype].itemsize * shape[0] * shape[1] * shape[2] * shape[3]
    rows, first, ways = {}, next(iter(runs)), variants(name, stride, False)
    known = variants(name, stride, name in args.compiled)
    for way, values in seconds.items():
        extra = None
        if not on_gpu and way in known:
            extra = memory(name, shape, stride, way)
        elif way in ways:
            extra = memory_on_gpu(ways[way], tensors)
        rows[way] = dict(
            median_s=statistics.median(values), best_s=min(values),
            times_the_operator=statistics.median(a / b for a, b in zip(values, seconds[first], strict=True)),
            peak_extra_maps=None if extra is None else extra / logit_map)
        memory_text = '' if extra is None else f', peak extra memory {extra / logit_map:5.2f} maps'
        print(f'  {way:>26}: {1000 * rows[way]["median_s"]:8.3f} ms (least {1000 * min(values):8.3f}), '
              f'x{rows[way]["times_the_operator"]:5.2f}'
              f'{memory_text}', flush=True)
    if 'copy of 3 maps' in rows:
        for way in (first, f'{first}, graph'):
            share = rows['copy of 3 maps']['median_s'] / rows[way]['median_s']
            rows[way]['share_of_copy_bandwidth'] = share
            print(f'  {way}: {100 * share:.0f} % of the copy bandwidth '
                  f'({3 * logit_map / rows["copy of 3 maps"]["median_s"] / 1e9:.0f} GB/s)', flush=True)
    return rows


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--losses', nargs='+', choices=list(OURS))
    parser.add_argument('--shapes', nargs='+', help='NxCxHxW of the labels')
    parser.add_argument('--dtypes', nargs='+', choices=list(DTYPES), help='of the logits')
    parser.add_argument('--stride', type=int, nargs='+', default=[1, 8],
                        help='of the logits; 1 measures the operator on logits of one resolution')
    parser.add_argument('--rounds', type=int)
    parser.add_argument('--compiled', nargs='*', choices=list(OURS), help='losses whose plain form torch.compile takes')
    parser.add_argument('--no-compile', dest='compiled', action='store_const', const=[], help='leave torch.compile out')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--out', type=Path)
    parser.add_argument('--memory-of', help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name, value in DEFAULTS['cuda' if args.device.startswith('cuda') else 'cpu'].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def main() -> None:
    args = parse_args()
    shapes = [tuple(map(int, shape.split('x'))) for shape in args.shapes]
    if args.memory_of:
        print(peak_bytes(args.losses[0], shapes[0], args.stride[0], args.memory_of))
        return
    result = dict(machine=describe_machine(args.device), temperature=TEMPERATURE, rounds=args.rounds, figures=[])
    for name, stride, dtype, shape in itertools.product(args.losses, args.stride, args.dtypes, shapes):
        wrong = difference(name, shape, stride, args.device, dtype)
        if not wrong < TOLERANCE[dtype]:
            raise SystemExit(f'no figures: {name} at stride {stride}, {shape[1]} classes, {dtype}, differs from the '
                             f'plain form in float64 by {wrong}')
        print(f'{name}, labels {"x".join(map(str, shape))}, logits at stride {stride}, {dtype} (checked: {wrong:.1e})',
              flush=True)
        rows = measure(name, shape, stride, dtype, args)
        result['figures'].append(
            dict(loss=name, shape=shape, stride=stride, dtype=dtype, difference=wrong, variants=rows))
    print(json.dumps(result))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1))


if __name__ == '__main__':
    main()
