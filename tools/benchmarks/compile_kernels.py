"""Compile the Triton kernels ahead of time, for GPUs that this machine need not have, and show what they use.

    python tools/benchmarks/compile_kernels.py [--losses kd dkd] [--classes 19 150] [--arch 80 90] [--out FILE]

Every kernel is compiled down to machine code with the very arguments that the operators call it with. Reported are
registers of a thread, bytes that it spills to memory (there should be none), threads of a program and, for the kernels
at one resolution, machine instructions per logit, loops counted once. These are facts about the code and no speeds.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

os.environ.pop('TRITON_INTERPRET', None)

import torch  # noqa: E402
import triton  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from mmseg_kd.functional import (  # noqa: E402
    ByClass,
    ByRank,
    GroupedLoss,
    OneGroup,
    RandomPart,
    TargetAndRest,
    Upsampled,
)
from mmseg_kd.functional.binary import BinaryKL, BinaryKLNorm  # noqa: E402
from mmseg_kd.functional.gpu import channels, operators, same_resolution, upsampling  # noqa: E402
from mmseg_kd.functional.gpu.tile import settings_of  # noqa: E402
from mmseg_kd.functional.kinds import ChannelWise, CrossEntropy  # noqa: E402

#: By name, for a number of classes.
LOSSES = {
    'kd': lambda _: GroupedLoss(OneGroup(), temperature=4.),
    'dkd': lambda _: GroupedLoss(TargetAndRest(), 1., (0., 8.), 4.),
    'gdkd': lambda _: GroupedLoss(ByRank((5, )), 1., (2., 8.), 4.),
    'gdkd worst': lambda _: GroupedLoss(ByRank((5, ), 'worst'), 1., (2., 8.), 4.),
    'gdkd both': lambda _: GroupedLoss(ByRank((5, )), 1., (2., 8.), 4., 'both'),
    'gdkd by ratio': lambda _: GroupedLoss(ByRank((5, ), ratio=2.), 1., (2., 8.), 4.),
    'gdkd3': lambda _: GroupedLoss(ByRank((1, 4)), 1., (0., 2., 8.), 4.),
    'stochastic': lambda _: GroupedLoss(RandomPart(.5), 1., (0., 0., 8.), 4.),
    'three groups of classes': lambda c: GroupedLoss(ByClass(tuple(i % 3 for i in range(c))), 1., (1., 2., 8.), 4.),
    'binary_kl': lambda _: BinaryKL(2.),
    'binary_kl_norm': lambda _: BinaryKLNorm(2.),
    'cross_entropy': lambda _: CrossEntropy(),
    'cwd': lambda _: ChannelWise(4.)}
_TYPES = {torch.float32: 'fp32', torch.int8: 'i8', torch.bfloat16: 'bf16', torch.float16: 'fp16', torch.float64: 'fp64',
          torch.int32: 'i32', torch.int64: 'i64', torch.uint8: 'u8', torch.bool: 'i1'}


class Call(NamedTuple):
    """One launch of a kernel, as it was to be."""

    kernel: Any
    arguments: Tuple[Any, ...]
    constants: Dict[str, Any]
    warps: int


class _Recorder:
    """Takes the place of a kernel in its module and notes how it is called."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.call: Optional[Call] = None

    def __getitem__(self, grid):
        return self

    def __call__(self, *arguments, num_warps=4, **constants):
        self.call = Call(self.kernel, arguments, constants, num_warps)


def recorded(module, function, *arguments, kernel='_kernel', **settings) -> Call:
    """What ``function(*arguments, **settings)`` would call the kernel of ``module`` with."""
    # None runs.
    places = [(each, name) for each in (same_resolution, upsampling, operators, channels)
              for name in vars(each) if name.endswith('_kernel')]
    kernels = [getattr(*place) for place in places]
    try:
        for place, each in zip(places, kernels, strict=True):
            setattr(*place, _Recorder(each))
        function(*arguments, **settings)
        return getattr(module, kernel).call
    finally:
        for place, each in zip(places, kernels, strict=True):
            setattr(*place, each)


def source(call: Call) -> ASTSource:
    """The kernel specialised by Triton's rules: a 1 is a constant, and what divides by 16 may count on it."""
    signature, constants, attributes = {}, dict(call.constants), {}
    for index, (name, value) in enumerate(zip(call.kernel.arg_names, call.arguments, strict=False)):
        if isinstance(value, torch.Tensor):
            signature[name] = '*' + _TYPES[value.dtype]
        elif isinstance(value, float):
            signature[name] = 'fp32'
        elif value == 1:
            constants[name] = 1
        else:
            signature[name] = 'i32'
        # torch's allocations are aligned.
        if isinstance(value, torch.Tensor) or isinstance(value, int) and value % 16 == 0:
            attributes[(index, )] = [['tt.divisibility', 16]]
    signature.update((name, 'constexpr') for name in constants)
    return ASTSource(fn=call.kernel, signature=signature, constexprs=constants, attrs=attributes)


def used(binary: bytes) -> Dict[str, int]:
    """Registers of a thread, bytes that it spills, and instructions of the machine code."""
    tool = str(Path(triton.__file__).parent / 'backends/nvidia/bin/cuobjdump')
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(binary)
        file.flush()
        usage, code = (subprocess.run([tool, option, file.name], capture_output=True, text=True, check=True).stdout
                       for option in ('-res-usage', '-sass'))
    registers, stack, local = re.search(r'REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)', usage).groups()
    return dict(registers=int(registers), spilled_bytes=int(stack) + int(local),
                instructions=len(re.findall(r'^\s+/\*[0-9a-f]{4,}\*/\s+\S', code, re.MULTILINE)))


def orders(ttgir: str) -> str:
    """Along which axis the lanes of a warp run in the loads of (classes, positions) tiles; '[1, 0]' is positions."""
    layouts = dict(re.findall(r'^#(\w+) = #ttg\.blocked<.*?order = (\[[0-9, ]+\])', ttgir, re.MULTILINE))
    loads = re.findall(r'tt\.load .*tensor<\d+x\d+x!?[^,]*, #(\w+)>', ttgir)
    return ' '.join(sorted({layouts[name] for name in loads if name in layouts}))


def compiled(call: Call, arch: int) -> Dict[str, int]:
    kernel = triton.compile(source(call), target=GPUTarget('cuda', arch, 32),
                            options=dict(num_warps=call.warps))
    return dict(used(kernel.asm['cubin']), threads=32 * call.warps, order=orders(kernel.asm['ttgir']))


def calls(args: argparse.Namespace) -> Iterator[Tuple[str, Call, int]]:
    """Name, call, and how many logits a program has (0 where that says nothing)."""
    one, types = torch.ones(()), {_TYPES[each]: each for each in (torch.float32, torch.bfloat16, torch.float16)}
    for num_classes in args.classes:
        for name in args.losses:
            loss = LOSSES[name](num_classes)
            settings = settings_of(loss, num_classes)
            given = w_within = None
            if settings.constants['GROUPS']:
                given = torch.zeros(1, 1, num_classes, 1, dtype=torch.int8)
                w_within = torch.ones(len(settings.w_within))
            maps = dict(weight=None, scale=one, rank=None, given=given, w_within=w_within, settings=settings,
                        with_gradient=True)
            for kind in args.types:
                if name == 'cwd':
                    yield from channel_wise_calls(settings, num_classes, types[kind], kind, args.strides)
                    continue
                if name != 'cross_entropy':
                    logits = torch.zeros(2, num_classes, 256, dtype=types[kind])
                    valid, target = torch.ones(2, 256, dtype=torch.bool), torch.zeros(2, 256, dtype=torch.int64)
                    target = target if settings.needs_target else None
                    call = recorded(same_resolution, same_resolution.loss_and_gradient, logits, logits, valid=valid,
                                    target=target, **maps)
                    yield f'{name}, {num_classes} classes, {kind}', call, num_classes * call.constants['WIDTH']
                for stride in args.strides if name != 'stochastic' else ():
                    logits = torch.zeros(1, num_classes, 64 // stride, 128 // stride, dtype=types[kind])
                    valid = torch.ones(1, 64, 128, dtype=torch.bool)
                    target = torch.zeros(1, 64, 128, dtype=torch.int64) if settings.needs_target else None
                    weight = torch.ones(num_classes) if name == 'cross_entropy' else None
                    teacher = None if name == 'cross_entropy' else logits
                    call = recorded(upsampling, upsampling.loss_and_gradient, logits, teacher, (64, 128),
                                    (False, False), valid=valid, class_weight=weight, target=target, **maps)
                    yield f'{name}, {num_classes} classes, {kind}, from stride {stride}', call, 0
    values = torch.zeros(4096)
    yield 'scaling', recorded(operators, operators.scaled, values, one), 0


def channel_wise_calls(settings, num_classes: int, dtype: torch.dtype, kind: str,
                       strides: List[int]) -> Iterator[Tuple[str, Call, int]]:
    """As :func:`calls`, for the loss that has kernels of its own."""
    size, label = (64, 128), f'cwd, {num_classes} classes, {kind}'
    maps = dict(valid=torch.ones(1, 64 * 128, dtype=torch.bool), weight=None, scale=torch.ones(()), settings=settings,
                with_gradient=True)
    for stride in (1, *strides):
        logits = torch.zeros(1, num_classes, 64 // stride, 128 // stride, dtype=dtype)
        logits = logits.flatten(2) if stride == 1 else Upsampled(logits, size)
        second = (channels, '_slopes_kernel') if stride == 1 else (upsampling, '_kernel')
        sums, slopes = (recorded(module, channels.loss_and_gradient, logits, logits, kernel=kernel, **maps)
                        for module, kernel in ((channels, '_sums_kernel'), second))
        width = sums.constants['WIDTH'] if stride == 1 else 0
        where = '' if stride == 1 else f', from stride {stride}'
        yield f'{label}{where}, sums', sums, width
        yield f'{label}{where}', slopes, width


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--losses', nargs='+', choices=list(LOSSES), default=list(LOSSES))
    parser.add_argument('--classes', type=int, nargs='+', default=[19, 150, 171])
    parser.add_argument('--types', nargs='+', choices=('fp32', 'bf16', 'fp16'), default=['fp32', 'bf16'])
    parser.add_argument('--strides', type=int, nargs='*', default=[4, 8, 16, 32])
    parser.add_argument('--arch', type=int, nargs='+', default=[80, 90], help='compute capability, 90 for Hopper')
    parser.add_argument('--out', type=Path)
    args = parser.parse_args()
    rows, spilled = [], False
    for name, call, logits in calls(args):
        for arch in args.arch:
            row = dict(kernel=name, arch=arch, **compiled(call, arch))
            if logits:
                row['instructions_per_logit'] = round(row['instructions'] * row['threads'] / logits, 1)
            spilled |= row['spilled_bytes'] > 0
            rows.append(row)
            print(f'{name:>48}, sm_{arch}: {row["registers"]:3} registers, {row["spilled_bytes"]} bytes spilled, '
                  f'{row["threads"]} threads' + (f', order {row["order"]}' if row['order'] else '') + (
                      f', {row["instructions_per_logit"]} instructions per logit'
                                                 if logits else ''), flush=True)
    result = dict(triton=triton.__version__, torch=torch.__version__, kernels=rows)
    print(json.dumps(result))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1))
    sys.exit('some kernels spill registers' if spilled else 0)


if __name__ == '__main__':
    main()
