"""What gradient alignment costs: one training step without it, at the features, over the parameters.

    python tools/benchmarks/grad_align.py [--rounds 30] [--device cpu] [--out grad_align.json]

The quickstart's student with a dual head and its teacher (random weights: time does not depend on them) on random
pictures. The three take turns, step by step, so that whatever else the machine does hits them alike. No time is
reported unless both levels first give the gradients of a plain transcription.
"""
import argparse
import copy
import json
import logging
import statistics
import time
from pathlib import Path

import mmengine
import mmseg
import torch
from machine import describe_machine
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

import mmseg_kd  # noqa: F401
from mmseg_kd.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
# The quickstart's DHKD, whichever student it has.
CONFIG, = (ROOT / 'configs/demo').glob('dhkd_*mini-cityscapes*.py')
VARIANTS = dict(
    unaligned=dict(type='OptimWrapper'), features=dict(type='mmseg_kd.GradAlignOptimWrapper', level='features'),
    parameters=dict(type='mmseg_kd.GradAlignOptimWrapper', level='parameters'))
TARGETS = dict(features=1.1, parameters=1.6)


def build_model(args: argparse.Namespace, path: Path = CONFIG):
    """A demo's distilled student; the settings are its own but for the dual head's kind and the teacher's weights."""
    config = Config.fromfile(path).model
    if 'dual_head' in config:
        config.dual_head.kind = args.kind
    config.teacher = dict(config=config.teacher.config)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(config)
        model.init_weights()
    return model.to(args.device).train()


def random_batch(args: argparse.Namespace) -> dict:
    generator = torch.Generator().manual_seed(0)
    height, width = args.size
    samples = []
    for _ in range(args.batch_size):
        label = torch.randint(0, 19, (1, height, width), generator=generator).to(args.device)
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=dict(
            img_shape=(height, width), ori_shape=(height, width))))
    pictures = torch.randint(0, 256, (args.batch_size, 3, height, width), generator=generator, dtype=torch.uint8)
    return dict(inputs=list(pictures.to(args.device)), data_samples=samples)


def gradients_of(model, settings: dict, data: dict) -> dict:
    """Gradients right before the optimizer's step, which has rate zero."""
    optimizer = build_optim_wrapper(model, dict(settings, optimizer=dict(type='SGD', lr=0.)))
    kept, step = {}, optimizer.step
    optimizer.step = lambda: (kept.update({n: p.grad.clone() for n, p in model.named_parameters()}), step())
    torch.manual_seed(1)
    model.train_step(data, optimizer)
    return kept


def transcription(model, data: dict, level: str) -> tuple[float, dict]:
    """What the supervised gradient is multiplied by, and the gradients of a level, by separate calls of autograd."""
    features = []
    handle = model.main_classifier().register_forward_pre_hook(lambda module, args: features.append(args[0]))
    data = model.data_preprocessor(data, True)
    torch.manual_seed(1)
    supervised, distillation = model.parse_losses(model.loss(data['inputs'], data['data_samples']))[0].objectives
    handle.remove()
    names, parameters = zip(*model.named_parameters(), strict=True)
    s, d = (dict(zip(names, torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True), strict=True))
            for loss in (supervised, distillation))
    shared = [name for name in names if s[name] is not None and d[name] is not None]
    if level == 'features':
        at = [torch.autograd.grad(loss, features[0], retain_graph=True)[0] for loss in (supervised, distillation)]
    else:
        at = [torch.cat([gradient[name].flatten() for name in shared]) for gradient in (s, d)]
    dot = (at[0].double() * at[1].double()).sum()
    factor = 1 - min(0., (dot / at[0].double().square().sum()).item())
    # The correction is a multiple of s at the features or the parameters; what lies below is linear in it.
    return factor, {name: d[name] if s[name] is None else s[name] if d[name] is None else factor * s[name] + d[name]
                    for name in names}


def check(model, data: dict) -> dict:
    """Largest relative difference (in norm, over all parameters) between each level and the transcription.

    Measured with the distillation as it is and negated: one of the two is a conflict.
    """
    worst, factors = dict.fromkeys(TARGETS, 0.), {level: [] for level in TARGETS}
    for sign in (1, -1):
        for level in TARGETS:
            pair = [copy.deepcopy(model) for _ in range(2)]
            for each in pair:
                each.terms['dhkd'].scale = sign
            got = gradients_of(pair[0], VARIANTS[level], data)
            factor, wanted = transcription(pair[1], data, level)
            factors[level].append(factor)
            difference, size = (torch.cat([part[name].flatten() for name in wanted]) for part in (
                {name: got[name] - wanted[name] for name in wanted}, wanted))
            worst[level] = max(worst[level], (difference.norm() / size.norm()).item())
    if any(max(values) == 1 for values in factors.values()):
        raise SystemExit(f'no figures: the check met no conflict ({factors}), so it shows nothing')
    return worst


def measure(model, data: dict, args: argparse.Namespace) -> tuple[dict, dict]:
    """Seconds per step of each variant, turn by turn, and peak memory of a step on a GPU."""
    runs = {}
    for name, settings in VARIANTS.items():
        own = copy.deepcopy(model)
        runs[name] = own, build_optim_wrapper(own, dict(settings, optimizer=dict(type='AdamW', lr=1e-4)))
    seconds, peaks = {name: [] for name in runs}, {}
    on_gpu = args.device.startswith('cuda')
    for index in range(args.warmup + args.rounds):
        for name in (list(runs)[index % 3:] + list(runs)[:index % 3]):
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
                torch.cuda.synchronize()
            start = time.perf_counter()
            runs[name][0].train_step(data, runs[name][1])
            if on_gpu:
                torch.cuda.synchronize()
                peaks[name] = torch.cuda.max_memory_allocated()
            if index >= args.warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds, peaks


def second_gradient_bytes(model, data: dict) -> int:
    """Bytes that level 'parameters' holds beside the gradients, at its largest."""
    optimizer = build_optim_wrapper(model, dict(VARIANTS['parameters'], optimizer=dict(type='SGD', lr=0.)))
    held, align = [], optimizer._second.align
    optimizer._second.align = lambda scope: (held.append(sum(
        gradient.nbytes for gradient in optimizer._second.gradients.values())), align(scope))[1]
    model.train_step(data, optimizer)
    return held[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=30)
    parser.add_argument('--warmup', type=int, default=5)
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--size', type=int, nargs=2, default=(64, 128), metavar=('HEIGHT', 'WIDTH'))
    parser.add_argument('--kind', choices=['linear', 'nonlinear'], default='linear')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--out', type=Path)
    args = parser.parse_args()
    logging.disable(logging.INFO)
    model, data = build_model(args), random_batch(args)
    differences = check(model, data)
    if max(differences.values()) > 1e-4:
        raise SystemExit(f'no figures: the gradients differ from the transcription: {differences}')
    extra = second_gradient_bytes(copy.deepcopy(model), data)
    of_parameters = sum(parameter.nbytes for parameter in model.parameters())
    seconds, peaks = measure(model, data, args)
    result = dict(
        config=CONFIG.name, machine=describe_machine(args.device), mmengine=mmengine.__version__,
        mmseg=mmseg.__version__, batch_size=args.batch_size, size=list(args.size), kind=args.kind, rounds=args.rounds,
        warmup=args.warmup,
        relative_difference_to_transcription=differences, parameter_bytes=of_parameters,
        parameters_level_extra_bytes=extra, peak_bytes=peaks, steps={})
    for name, values in seconds.items():
        low, median, high = statistics.quantiles(values, n=4)
        # Paired: each turn has one step of each, so a busy machine cancels.
        ratios = [value / base for value, base in zip(values, seconds['unaligned'], strict=True)]
        result['steps'][name] = dict(
            median_s=median, iqr_s=high - low, ratio_of_medians=median / statistics.median(seconds['unaligned']),
            median_of_ratios=statistics.median(ratios), target=TARGETS.get(name))
        print(f'{name:>10}: {1000 * median:7.1f} ms, IQR {1000 * (high - low):5.1f}; x{statistics.median(ratios):.3f}'
              + (f' (target {TARGETS[name]})' if name in TARGETS else ''))
    print(f'level parameters holds {extra / 1e6:.2f} MB beside the gradients; all parameters are '
          f'{of_parameters / 1e6:.2f} MB')
    print(json.dumps(result))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1))


if __name__ == '__main__':
    main()
