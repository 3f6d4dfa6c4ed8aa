"""Time and memory of the losses' operators beside the usual formulation, the plain form and ``torch.compile`` of it.

    python tools/benchmarks/operators.py [--losses kd dkd] [--shapes 2x19x512x1024] [--stride 1 8] [--out FILE]

Forward and backward, on logits of one resolution and (``--stride``) on small logits against labels of that size. All
variants take turns, round by round, so that whatever else the machine does hits them alike. No speed is printed unless
the operator first agrees with the plain form in float64. Memory is what one forward and backward pass needs at its peak
beside its inputs, in a process of its own.
"""
import argparse
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
from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from usual_formulation import USUAL  # noqa: E402

from mmseg_kd import functional  # noqa: E402
from mmseg_kd.functional import Upsampled  # noqa: E402

OURS = dict(
    kd=functional.kd_loss, dkd=lambda *args, **kwargs: functional.dkd_loss(*args, alpha=1., beta=8., **kwargs),
    gdkd=lambda *args, **kwargs: functional.gdkd_loss(*args, k=5, w0=1., w1=2., w2=8., **kwargs),
    binary_kl_norm=functional.binary_kl_norm_loss)
TEMPERATURE = 4.


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
            ways['compiled plain'] = torch.compile(operator, fullgraph=True)
        return ways

    def at(target):
        return target.shape[1:]

    return {
        'upsampling operator': lambda z, v, t: operator(Upsampled(z, tuple(at(t))), Upsampled(v, tuple(at(t))), t),
        'interpolate + operator': lambda z, v, t: operator(resized(z, at(t)), resized(v, at(t)), t),
        'interpolate + usual': lambda z, v, t: usual(resized(z, at(t)), resized(v, at(t)), t, TEMPERATURE)}


def problem(shape: tuple, stride: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Random logits, as small as ``stride`` says, and labels without an ignored one, which the usual code cannot."""
    generator = torch.Generator().manual_seed(0)
    number, classes, height, width = shape
    small = number, classes, height // stride, width // stride
    student, teacher = (3 * torch.randn(small, generator=generator) for _ in range(2))
    target = torch.randint(classes, (number, height, width), generator=generator)
    return student.to(device).requires_grad_(), teacher.to(device), target.to(device)


def step(way, student: Tensor, teacher: Tensor, target: Tensor) -> None:
    student.grad = None
    way(student, teacher, target).backward()


def difference(name: str, stride: int, device: str) -> float:
    """Largest relative difference between the operator and the plain form in float64, of value and gradient."""
    student, teacher, target = problem((2, 19, 64, 96), stride, device)
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
    student, teacher, target = problem(shape, stride, 'cpu')
    run = variants(name, stride, way == 'compiled plain')[way]
    warm = problem((1, *shape[1:2], 16, 32), stride, 'cpu') if stride <= 16 else (student, teacher, target)
    step(run, *warm)

    def resident(field: str) -> int:
        for line in Path('/proc/self/status').read_text().splitlines():
            if line.startswith(field):
                return 1024 * int(line.split()[1])
        raise SystemExit(f'/proc/self/status has no {field}: memory is measured on Linux alone')

    Path('/proc/self/clear_refs').write_text('5')  # the peak begins anew
    before = resident('VmRSS')
    step(run, student, teacher, target)
    return resident('VmHWM') - before


def memory(name: str, shape: tuple, stride: int, way: str) -> int | None:
    """:func:`peak_bytes` in a process of its own; None where the variant does not run."""
    command = [sys.executable, '-W', 'ignore', __file__, '--memory-of', way, '--losses', name, '--stride', str(stride),
               '--shapes', 'x'.join(map(str, shape))]
    done = subprocess.run(command, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) if done.returncode == 0 else None


def measure(name: str, shape: tuple, stride: int, args: argparse.Namespace) -> dict:
    """Seconds and bytes of every variant of one loss at one shape."""
    tensors = problem(shape, stride, args.device)
    ways = variants(name, stride, args.compile)
    seconds = {way: [] for way in ways}
    for way, run in ways.items():
        started = time.perf_counter()
        step(run, *tensors)
        print(f'  {way}: first step {time.perf_counter() - started:.1f} s', flush=True)
    for _ in range(args.rounds):
        for way, run in ways.items():
            if args.device != 'cpu':
                torch.cuda.synchronize()
            started = time.perf_counter()
            step(run, *tensors)
            if args.device != 'cpu':
                torch.cuda.synchronize()
            seconds[way].append(time.perf_counter() - started)
    logit_map = 4 * shape[0] * shape[1] * shape[2] * shape[3]
    rows = {}
    first = next(iter(ways))
    for way, values in seconds.items():
        extra = memory(name, shape, stride, way) if args.device == 'cpu' else None
        rows[way] = dict(
            median_s=statistics.median(values), best_s=min(values),
            times_the_operator=statistics.median(a / b for a, b in zip(values, seconds[first], strict=True)),
            peak_extra_maps=None if extra is None else extra / logit_map)
        memory_text = '' if extra is None else f', peak extra memory {extra / logit_map:5.2f} maps'
        print(f'  {way:>22}: {1000 * rows[way]["median_s"]:8.1f} ms, x{rows[way]["times_the_operator"]:5.2f}'
              f'{memory_text}', flush=True)
    return rows


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--losses', nargs='+', choices=list(OURS), default=list(OURS))
    parser.add_argument('--shapes', nargs='+', default=['2x19x512x1024', '1x150x512x512'], help='NxCxHxW of the labels')
    parser.add_argument('--stride', type=int, nargs='+', default=[1, 8],
                        help='of the logits; 1 measures the operator on logits of one resolution')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--no-compile', dest='compile', action='store_false', help='leave torch.compile out')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--out', type=Path)
    parser.add_argument('--memory-of', help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    shapes = [tuple(map(int, shape.split('x'))) for shape in args.shapes]
    if args.memory_of:
        print(peak_bytes(args.losses[0], shapes[0], args.stride[0], args.memory_of))
        return
    result = dict(machine=describe_machine(args.device), temperature=TEMPERATURE, rounds=args.rounds, figures=[])
    for name in args.losses:
        for stride in args.stride:
            wrong = difference(name, stride, args.device)
            if not wrong < 1e-5:
                raise SystemExit(f'no figures: {name} at stride {stride} differs from the plain form in float64 by '
                                 f'{wrong}')
            for shape in shapes:
                print(f'{name}, labels {"x".join(map(str, shape))}, logits at stride {stride} (checked: {wrong:.1e})',
                      flush=True)
                rows = measure(name, shape, stride, args)
                result['figures'].append(dict(loss=name, shape=shape, stride=stride, difference=wrong, variants=rows))
    print(json.dumps(result))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1))


if __name__ == '__main__':
    main()
