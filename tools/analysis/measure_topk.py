"""Measure how many classes a teacher means at a position, per class: the table `k` of GDKDLoss.

    python tools/analysis/measure_topk.py work_dirs/teacher --out table.json --mass 0.95 --k-max 5
    python tools/analysis/measure_topk.py teacher_config.py teacher.pth --out table.json

The teacher is a segmentor, or a classifier, whose positions are its pictures. Writes JSON for
``dict(type='mmseg_kd.GDKDLoss', k='table.json')``, and beside it the same as a markdown table. As in GDKD's code (Zheng
and Cheng, 2025), the k of a class follows from the teacher's distribution on the training pictures, averaged over
positions labelled with that class; the pictures are read as for validation, without augmentation. A class without such
positions gets the k of the distribution averaged over all of them.
"""
import argparse
import json
from pathlib import Path
from typing import Iterable

import torch
from mmengine.config import DictAction
from mmengine.registry import init_default_scope
from torch import Tensor, nn

import mmseg_kd  # noqa: F401 (before configs are read: makes 'mmseg::' bases resolve)
from mmseg_kd.commands.arguments import add_trust_argument
from mmseg_kd.config import read_config
from mmseg_kd.evaluation.predictions import build_loader, predictor_of
from mmseg_kd.evaluation.runs import read_run
from mmseg_kd.export.plain import build_plain
from mmseg_kd.functional import k_by_mass, k_by_ratio


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Measure k per class of a teacher', epilog=__doc__.split('\n\n')[1])
    parser.add_argument('config', help="the teacher's work dir or config, which names the data")
    parser.add_argument('checkpoint', nargs='?', help="the teacher's checkpoint (default: the latest of its work dir)")
    parser.add_argument('--out', required=True, help='JSON file to write; the markdown lies beside it')
    rule = parser.add_mutually_exclusive_group()
    rule.add_argument('--mass', type=float, default=0.95,
                      help='k is the fewest classes that hold this share of the probability (default 0.95)')
    rule.add_argument('--ratio', type=float,
                      help='k is the last rank that is this many times as probable as the mean of it and all below')
    parser.add_argument('--k-max', type=int, default=5, help='the largest k (default 5)')
    parser.add_argument('--temperature', type=float, default=1.,
                        help='softens the distribution first; take that of the loss to see what it sees (default 1)')
    parser.add_argument('--split', choices=['train', 'val'], default='train',
                        help='whose pictures (default train, as published)')
    parser.add_argument('--images', type=int, help='measure on this many images only (default: all)')
    parser.add_argument('--device', default='cpu', help='where to predict (default cpu)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override settings of the config')
    add_trust_argument(parser)
    args = parser.parse_args()
    if Path(args.config.rpartition('=')[2]).is_dir():  # a run is [NAME=]WORK_DIR everywhere
        args.config = args.config.rpartition('=')[2]
    if args.checkpoint is None and not Path(args.config).is_dir():
        raise ValueError(f'`checkpoint` must be given with a config file, got {args.config!r} alone; or name the work '
                         'dir of a run')
    if not 0 < args.mass <= 1:
        raise ValueError(f'`--mass` must be above 0 and at most 1, got {args.mass}')
    for name in ('ratio', 'k_max', 'temperature', 'images'):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise ValueError(f'`--{name.replace("_", "-")}` must be positive, got {value}')
    return args


@torch.no_grad()
def mean_distributions(model: nn.Module, batches: Iterable[dict], temperature: float) -> tuple[Tensor, Tensor]:
    """The teacher's softened distribution averaged over the positions of each label, (C, C), and how many there are."""
    total, positions = 0., 0
    for data in batches:
        for logits, _, labels in predictor_of(model)(model, data):
            num_classes = len(logits)
            if num_classes < 3:
                raise ValueError(f'`config`: a choice of k needs a teacher of at least 3 classes, got {num_classes}')
            probabilities = (logits.double() / temperature).softmax(0).movedim(0, -1)
            labelled = (labels >= 0) & (labels < num_classes)
            labels, probabilities = labels[labelled].cpu(), probabilities[labelled].cpu()
            total = total + torch.zeros(num_classes, num_classes, dtype=torch.float64).index_add(
                0, labels, probabilities)
            positions = positions + torch.bincount(labels, minlength=num_classes)
    if not positions.any():
        raise ValueError('`config`: its pictures have no labelled position; see `--split`')
    missing = positions == 0
    total[missing] = total.sum(0)
    return total / positions.masked_fill(missing, positions.sum()).unsqueeze(1), positions


def first_images(loader: Iterable[dict], images: int | None) -> Iterable[dict]:
    """Batches until the given number of images is reached."""
    seen = 0
    for data in loader:
        yield data
        seen += len(data['inputs'])
        if images and seen >= images:
            return


def markdown(table: dict) -> str:
    """The measured table for people: k, and how much of the teacher's probability its first k classes hold."""
    lines = ['| class | k | mass of the first k | mass of the first | positions |',
             '| --- | ---: | ---: | ---: | ---: |']
    columns = (table[name] for name in ('classes', 'k', 'mass_of_k', 'mass_of_first', 'positions'))
    return '\n'.join(lines + [f'| {name} | {k} | {of_k:.3f} | {of_first:.3f} | {count} |'
                              for name, k, of_k, of_first, count in zip(*columns, strict=True)])


def main() -> None:
    args = parse_args()
    if Path(args.config).is_dir():
        run = read_run(args.config, args.trust_configs)
        cfg, args.checkpoint = run.config, args.checkpoint or str(run.checkpoint)
    else:
        cfg = read_config(args.config, 'config')
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    model = build_plain(cfg, args.checkpoint)[0].to(args.device)
    loader = build_loader(cfg, args.split)

    distributions, positions = mean_distributions(model, first_images(loader, args.images), args.temperature)
    if args.ratio is not None:
        k = k_by_ratio(distributions.log(), args.ratio, args.k_max)
    else:
        k = k_by_mass(distributions.log(), args.mass, args.k_max)
    held = distributions.sort(1, descending=True).values.cumsum(1)
    table = dict(
        k=k.tolist(), positions=positions.tolist(), classes=list(loader.dataset.metainfo['classes']),
        mass_of_k=held.gather(1, k[:, None] - 1)[:, 0].tolist(), mass_of_first=held[:, 0].tolist(),
        rule=dict(mass=args.mass) if args.ratio is None else dict(ratio=args.ratio),
        k_max=args.k_max, temperature=args.temperature, split=args.split, config=args.config,
        checkpoint=args.checkpoint)
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(table, indent=2) + '\n')
    out.with_suffix('.md').write_text(markdown(table) + '\n')
    print(markdown(table))
    print(f'written to {out} and {out.with_suffix(".md")}')


if __name__ == '__main__':
    main()
