"""Neural collapse (NC1 to NC4) over the training of several runs.

    python tools/analysis/neural_collapse.py CE=work_dirs/student_s0 DKD=work_dirs/dkd_s0 DGKD=work_dirs/dgkd_s0 \\
        --out work_dirs/collapse

Measures every checkpoint that a run kept (default_hooks.checkpoint.interval) on its training images, read through the
validation pipeline: segmentors at the input of `conv_seg`, classifiers at that of the linear layer. Of a segmentor as
many pixels of each class are taken, the same ones for every checkpoint. Writes into OUT: collapse.png (a curve a run),
collapse_classes.png (NC1 of each class), collapse.md (the ends of the curves, and when each run came to where the first
one ended) and collapse.json (all of it). The definitions are those of mmseg_kd/evaluation/collapse.py; all of them are
0 in full collapse.
"""
import argparse
import json
import logging
import re
from pathlib import Path

import numpy as np
import torch
from mmengine.registry import init_default_scope
from mmengine.utils import track_iter_progress
from torch import Tensor, nn
from torch.nn import functional as F

import mmseg_kd  # noqa: F401 (before configs are read)
from mmseg_kd.commands.arguments import RUN, add_trust_argument
from mmseg_kd.distillers.segmentation.prediction import labels_as_seen
from mmseg_kd.evaluation.collapse import balanced_sample, neural_collapse
from mmseg_kd.evaluation.members import Member, load, named_runs
from mmseg_kd.evaluation.predictions import build_loader
from mmseg_kd.taps import module_calls
from mmseg_kd.teachers.weights import read_weights
from mmseg_kd.visualization.class_heat import draw_class_heat
from mmseg_kd.visualization.curves import Panel, draw_curves
from mmseg_kd.visualization.theme import ALONE, DISTILLED, TEACHER

MEASURES = dict(nc1='NC1', nc1_trace='NC1 of traces', nc2_norm='NC2 lengths', nc2_angle='NC2 angles', nc3='NC3',
                nc4='NC4')
# Pixels of one class taken from one image: neighbours say the same.
PER_IMAGE = 32


def parse_args(arguments=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=__doc__.split('\n\n')[1])
    parser.add_argument('runs', nargs='+', metavar=RUN, help='runs; the first one is the yardstick')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/collapse'), help='folder to write into')
    parser.add_argument('--split', choices=['train', 'val'], default='train',
                        help='whose images (default train, as in the paper)')
    parser.add_argument('--images', type=int, default=200, help='how many images, evenly spaced (default 200)')
    parser.add_argument('--per-class', type=int, default=500, help='features of each class at most (default 500)')
    parser.add_argument('--device', default='cpu', help='where to run (default cpu)')
    add_trust_argument(parser)
    args = parser.parse_args(arguments)
    for name in ('images', 'per_class'):
        if getattr(args, name) < 1:
            raise ValueError(f'`--{name.replace("_", "-")}`: expected at least 1, got {getattr(args, name)}.')
    return args


def checkpoints(work_dir: Path) -> dict[int, Path]:
    """Iteration or epoch to the checkpoint that a run kept of it, in order."""
    found = {int(match[1]): path for path in work_dir.glob('*.pth')
             if (match := re.fullmatch(r'(?:iter|epoch)_(\d+)', path.stem))}
    return dict(sorted(found.items()))


def images(member: Member, split: str, number: int):
    """Batches of a run's training or validation images, through its validation pipeline."""
    dataset = build_loader(member.config, split).dataset
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(number, len(dataset))).astype(int))
    return dataset.metainfo['classes'], [dataset[int(index)] for index in chosen]


def last_head(model: nn.Module) -> nn.Module:
    """The decode head of a plain segmentor whose logits are the prediction."""
    heads = model.decode_head
    return heads[-1] if isinstance(heads, nn.ModuleList) else heads


def classifier_of(model: nn.Module) -> nn.Module:
    """The last linear layer of a plain segmentor or classifier."""
    if hasattr(model, 'decode_head'):
        from mmseg_kd.distillers.segmentation.heads import main_classifier
        return main_classifier(last_head(model))
    from mmseg_kd.distillers.classification.heads import main_linear
    return main_linear(model.head)


@torch.no_grad()
def features_of(model: nn.Module, items: list[dict], per_class: int) -> tuple[Tensor, Tensor]:
    """Features (n, D) before the classifier and their labels (n,), on the CPU, as many of each class if possible.

    Which positions are taken follows only from the labels.
    """
    features, labels, generator = [], [], torch.Generator().manual_seed(0)
    # Pictures of a segmentor are large and differ in size.
    dense = hasattr(model, 'decode_head')
    together, ignored = (1, last_head(model).ignore_index) if dense else (32, None)
    for start in range(0, len(items), together):
        samples = [item['data_samples'].new() for item in items[start:start + together]]
        inputs = [item['inputs'] for item in items[start:start + together]]
        data = model.data_preprocessor(dict(inputs=inputs, data_samples=samples), False)
        with module_calls({}, [classifier_of(model)]) as calls:
            model(data['inputs'], mode='tensor')
        feature = calls.arguments[0][-1].first
        if dense:
            # The preprocessor's own samples say where it padded.
            label = labels_as_seen(data['data_samples'][0], tuple(data['inputs'].shape[2:]), ignored)
            label = F.interpolate(label[None, None].double(), size=feature.shape[2:], mode='nearest')
            feature, label = feature[0].flatten(1).T, label.flatten().long().cpu()
        else:
            label = torch.cat([sample.gt_label for sample in samples])
        chosen = balanced_sample(label, PER_IMAGE, generator, ignored)
        features.append(feature[chosen.to(feature.device)].float().cpu())
        labels.append(label[chosen])
    features, labels = torch.cat(features), torch.cat(labels)
    chosen = balanced_sample(labels, per_class, generator, ignored)
    return features[chosen], labels[chosen]


def measure(member: Member, args: argparse.Namespace) -> dict:
    """Collapse at every checkpoint of a run: measure to a list, and NC1, NC3 and NC4 to a list of lists by class."""
    model = load(member, args.device)
    classifier = classifier_of(model)
    classes, items = images(member, args.split, args.images)
    kept = checkpoints(member.run.work_dir)
    if not kept:
        raise ValueError(f'`runs`: {member.run.work_dir} keeps no iter_*.pth or epoch_*.pth to measure.')
    result = dict(name=member.name, classes=list(classes), step=list(kept), **{name: [] for name in MEASURES})
    result.update({f'{name}_of_class': [] for name in ('nc1', 'nc1_trace', 'nc3', 'nc4')})
    print(f'{member.name}: {len(kept)} checkpoints')
    for path in track_iter_progress(list(kept.values())):
        model.load_state_dict(read_weights(str(path), 'checkpoint'))
        features, labels = features_of(model, items, args.per_class)
        weight = classifier.weight.detach().cpu().flatten(1)
        found = neural_collapse(features, labels, weight, None if classifier.bias is None else
                                classifier.bias.detach().cpu())
        for name, value in found._asdict().items():
            result[name].append(value.tolist() if isinstance(value, Tensor) else value)
    print()
    result['features_of_class'] = torch.bincount(labels, minlength=len(weight)).tolist()
    metric = 'mIoU' if 'mIoU' in member.run.scores else 'accuracy/top1'
    result.update(metric=metric, score=[[record['step'], record[metric]] for record in member.run.validations])
    return result


def first_below(run: dict, measure_name: str, value: float) -> str:
    """The first checkpoint whose measure is at most ``value``, in words."""
    return next((str(step) for step, each in zip(run['step'], run[measure_name], strict=True) if each <= value),
                'never')


def table(runs: list[dict]) -> str:
    """Markdown: the measures at the last checkpoint, and when each first came to where the first run ended."""
    metric = runs[0]['metric'].removeprefix('accuracy/')
    ends = [f'| at the end | {metric} | ' + ' | '.join(MEASURES.values()) + ' |', '| --- |' + ' ---: |' * 7]
    first = [f'| first at the end of {runs[0]["name"]} | ' + ' | '.join(MEASURES.values()) + ' |',
             '| --- |' + ' ---: |' * 6]
    for run in runs:
        ends.append(f"| {run['name']} | {run['score'][-1][1]:.2f} | "
                    + ' | '.join(f'{run[name][-1]:.3g}' for name in MEASURES) + ' |')
        first.append(f"| {run['name']} | "
                     + ' | '.join(first_below(run, name, runs[0][name][-1]) for name in MEASURES) + ' |')
    return '\n'.join([*ends, '', *first])


def draw(runs: list[dict], out: Path) -> None:
    """The two figures."""
    colors = dict(zip([run['name'] for run in runs], [ALONE, *DISTILLED, TEACHER], strict=False))
    panels = [Panel(title, '', {run['name']: (run['step'], run[name]) for run in runs},
                    log=name in ('nc1', 'nc1_trace')) for name, title in MEASURES.items()]
    metric = runs[0]['metric'].removeprefix('accuracy/')
    panels.append(Panel(f'{metric}, %', '', {
        run['name']: tuple(zip(*run['score'], strict=True)) for run in runs}))
    draw_curves(panels, colors, 'checkpoint', columns=4, height=2.7).savefig(out / 'collapse.png', facecolor='white')
    seen = [index for index, number in enumerate(runs[0]['features_of_class']) if number]
    draw_class_heat({run['name']: np.array(run['nc1_trace_of_class'])[:, seen].T for run in runs},
                    [runs[0]['classes'][index] for index in seen], {run['name']: run['step'] for run in runs},
                    'NC1 of traces, by class').savefig(out / 'collapse_classes.png', facecolor='white')


def main(arguments=None) -> None:
    args = parse_args(arguments)
    members = named_runs(args.runs, args.trust_configs)
    init_default_scope(members[0].config.get('default_scope', 'mmseg'))
    runs = [measure(member, args) for member in members]
    args.out.mkdir(parents=True, exist_ok=True)
    settings = dict(split=args.split, images=args.images, per_class=args.per_class)
    (args.out / 'collapse.json').write_text(json.dumps(dict(settings=settings, runs=runs), indent=1, default=float))
    (args.out / 'collapse.md').write_text(table(runs) + '\n')
    draw(runs, args.out)
    print(table(runs))


if __name__ == '__main__':
    logging.disable(logging.INFO)
    main()
