"""What a distilled training step costs beyond the student's step and the teacher's forward pass.

    python tools/benchmarks/distill_step.py [CONFIG] [--size 64 128] [--batch-size 8] [--rounds 20] [--out FILE]
    python tools/benchmarks/distill_step.py --device cuda

CONFIG is a distilled config (default: the quickstart's DKD, on a GPU also PSPNet R101 -> R18 at 512 x 1024, batch 2);
weights and pictures are random, on which no time depends, and nothing is downloaded.
Student alone, teacher alone and the distilled step in several forms take turns, so that whatever else the machine does
hits them alike. No time is reported unless the forms first give one and the same loss.
"""
import argparse
import copy
import json
import logging
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

import torch  # noqa: E402
from grad_align import ROOT, random_batch  # noqa: E402
from machine import describe_machine  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.optim import build_optim_wrapper  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402

import mmseg_kd  # noqa: E402, F401
from mmseg_kd.config import student_config  # noqa: E402
from mmseg_kd.distillers.segmentation.supervised import upsample_in_head  # noqa: E402
from mmseg_kd.registry import MODELS  # noqa: E402

TARGET = 1.05
#: Name to (settings of the model, settings of the teacher, MMSEG_KD_KERNELS); the first is the one with the target.
FORMS = {
    'distilled': ({}, {}, 'auto'),
    'distilled, plain losses': ({}, {}, 'naive'),
    'distilled, upsample_in_loss': (dict(upsample_in_loss=True), {}, 'auto'),
    'distilled, teacher in bf16': ({}, dict(dtype='bf16'), 'auto'),
    'distilled, teacher channels_last': ({}, dict(channels_last=True), 'auto'),
    'distilled, teacher compiled': ({}, dict(compile=True), 'auto')}
#: Which takes minutes at first, and a compiler.
ON_REQUEST = 'distilled, teacher compiled'


def build(config: dict, args: argparse.Namespace):
    torch.manual_seed(0)
    config = copy.deepcopy(config)
    config['data_preprocessor'] = dict(config['data_preprocessor'], size=tuple(args.size))
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(config)
        model.init_weights()
    return model.to(args.device).train()


def load(path: Path) -> dict:
    """The model of a distilled config, its teacher and backbones with random weights."""
    config = Config.fromfile(path).model
    config.teacher = dict(config=config.teacher.config)
    config.pretrained = None
    return config


def build_form(config: dict, form: str, args: argparse.Namespace):
    settings, teacher, _ = FORMS[form]
    own = copy.deepcopy(dict(config, **settings))
    own['teacher'].update(teacher)
    return build(own, args)


def training_step(model, data: dict, kernels: str = 'auto'):
    """A function that does one step."""
    optimizer = build_optim_wrapper(model, dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4)))

    def run():
        os.environ['MMSEG_KD_KERNELS'] = kernels
        return model.train_step(data, optimizer)
    return run


def teachers_pass(model, data: dict):
    """A function that does the teacher's forward pass of a distilled model."""
    prepared = model.data_preprocessor(data, True)
    return lambda: model.teacher(prepared['inputs'], prepared['data_samples'], {'logits'})


def parts_of(path: Path, args: argparse.Namespace) -> dict:
    """Name to a function that builds one step: of the student, of the teacher, of the distilled model's forms."""
    config, data = load(path), random_batch(args)

    def student(upsample_in_loss: bool):
        model = build(student_config(config), args)
        for setting in ('decode_head', 'auxiliary_head') if upsample_in_loss else ():
            if getattr(model, setting, None) is not None:
                upsample_in_head(getattr(model, setting), setting)
        return training_step(model, data)

    return {
        'student alone': lambda: student(False),
        'student alone, upsample_in_loss': lambda: student(True),
        'teacher alone': lambda: teachers_pass(build_form(config, 'distilled', args), data),
        **{form: lambda form=form: training_step(build_form(config, form, args), data, FORMS[form][2])
           for form in FORMS}}


def runs_of(config: dict, data: dict, args: argparse.Namespace) -> dict:
    """Name to a function that does one step, after a check that the forms of the distilled one agree."""
    models = {form: (build_form(config, form, args), FORMS[form][2]) for form in args.forms}
    check({form: pair for form, pair in models.items() if form != 'distilled, teacher in bf16'}, data)
    return {
        'student alone': training_step(build(student_config(config), args), data),
        'teacher alone': teachers_pass(next(iter(models.values()))[0], data),
        **{form: training_step(model, data, kernels) for form, (model, kernels) in models.items()}}


def check(models: dict, data: dict) -> None:
    """All forms of one distilled step have one loss."""
    totals = {}
    for name, (model, kernels) in models.items():
        os.environ['MMSEG_KD_KERNELS'] = kernels
        model = copy.deepcopy(model)
        prepared = model.data_preprocessor(data, True)
        torch.manual_seed(1)
        totals[name] = model.parse_losses(model.loss(prepared['inputs'], prepared['data_samples']))[0].item()
    low, high = min(totals.values()), max(totals.values())
    if not high - low <= 1e-4 * abs(high):
        raise SystemExit(f'no figures: the forms of the step have different losses: {totals}')


#: (config, (height, width), batch size)
QUICKSTART = 'configs/demo/dkd_*mini-cityscapes-64x128*.py', (64, 128), 8
PSPNET = 'configs/seg/dkd/dkd_pspnet-r101-d8_pspnet-r18-d8_*cityscapes-512x1024.py', (512, 1024), 2


def first_match(pattern: str) -> Path:
    path, = ROOT.glob(pattern)
    return path


def measure(path: Path, args: argparse.Namespace) -> dict:
    """Times of one pair; ``args`` has its size and batch size."""
    runs, seconds, peak = runs_of(load(path), random_batch(args), args), {}, {}
    on_gpu = args.device.startswith('cuda')
    for index in range(args.warmup + args.rounds):
        for name, run in runs.items():
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated() if on_gpu else 0
            started = time.perf_counter()
            run()
            if on_gpu:
                torch.cuda.synchronize()
                peak[name] = torch.cuda.max_memory_allocated() - before
            if index >= args.warmup:
                seconds.setdefault(name, []).append(time.perf_counter() - started)
    parts = [a + b for a, b in zip(seconds['student alone'], seconds['teacher alone'], strict=True)]
    result = dict(config=path.name, size=list(args.size), batch_size=args.batch_size, rounds=args.rounds,
                  target=TARGET, steps={})
    print(f'{path.name}, {args.batch_size} x {args.size[0]} x {args.size[1]}')
    for name, values in seconds.items():
        # Paired: each turn has one step of each, so a busy machine cancels.
        ratio = statistics.median(value / part for value, part in zip(values, parts, strict=True))
        result['steps'][name] = dict(median_s=statistics.median(values), times_student_and_teacher=ratio,
                                     peak_extra_bytes=peak.get(name))
        print(f'{name:>32}: {1000 * statistics.median(values):8.1f} ms, x{ratio:.3f} of student + teacher'
              + (f' (target {TARGET})' if name == 'distilled' else '')
              + (f', {peak[name] / 2**20:.0f} MiB at its peak' if name in peak else ''), flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', nargs='?', type=Path)
    parser.add_argument('--rounds', type=int, default=20)
    parser.add_argument('--warmup', type=int, default=3)
    parser.add_argument('--batch-size', type=int)
    parser.add_argument('--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'))
    parser.add_argument('--forms', nargs='+', choices=list(FORMS), help=f'default: all but "{ON_REQUEST}"',
                        default=[form for form in FORMS if form != ON_REQUEST])
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--out', type=Path)
    args = parser.parse_args()
    logging.disable(logging.INFO)
    pairs = [QUICKSTART, PSPNET] if args.device.startswith('cuda') else [QUICKSTART]
    if args.config is not None:
        pairs = [(args.config, *QUICKSTART[1:])]
    result = dict(machine=describe_machine(args.device), pairs=[])
    for config, size, batch_size in pairs:
        path = config if isinstance(config, Path) else first_match(config)
        own = argparse.Namespace(**{**vars(args), 'size': args.size or size,
                                    'batch_size': args.batch_size or batch_size})
        result['pairs'].append(measure(path, own))
    print(json.dumps(result))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1))


if __name__ == '__main__':
    main()
