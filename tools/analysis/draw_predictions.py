"""Draw image, ground truth and the predictions of several runs side by side.

    python tools/analysis/draw_predictions.py teacher=work_dirs/teacher student=work_dirs/student --out predictions.png
"""
import argparse
from pathlib import Path

import numpy as np
from mmengine.registry import DATASETS, init_default_scope
from mmseg.apis import inference_model

import mmseg_kd  # noqa: F401 (before configs are read)
from mmseg_kd.commands.arguments import RUN, add_trust_argument, name_and_runs
from mmseg_kd.evaluation.runs import Run, read_run
from mmseg_kd.export.plain import build_plain
from mmseg_kd.visualization.predictions import colorize, draw_predictions


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Draw predictions of several runs', epilog=__doc__.split('\n\n')[1])
    parser.add_argument('runs', nargs='+', metavar=RUN, help='a column: its name and a work dir')
    parser.add_argument('--out', required=True, help='PNG to write')
    parser.add_argument('--images', type=int, default=4, help='how many validation images, evenly spaced (default 4)')
    parser.add_argument('--device', default='cpu', help='where to predict (default cpu)')
    add_trust_argument(parser)
    return parser.parse_args()


def predictions(run: Run, images: list[np.ndarray], device: str) -> list[np.ndarray]:
    """Label maps (H, W) of a run's student for BGR images."""
    model = build_plain(run.config, str(run.checkpoint))[0].to(device)
    # What mmseg's inference reads; not every config names its test pipeline.
    model.cfg = run.config
    model.cfg.test_pipeline = run.config.val_dataloader.dataset.pipeline
    return [inference_model(model, image).pred_sem_seg.data[0].cpu().numpy() for image in images]


def main() -> None:
    args = parse_args()
    if args.images < 1:
        raise ValueError(f'`--images`: expected at least 1, got {args.images}.')
    runs = {}
    for item in args.runs:
        name, (work_dir, *others) = name_and_runs(item)
        if others:
            raise ValueError(f'`runs`: expected one work dir for each column, {RUN}, got {item!r}.')
        runs[name] = read_run(work_dir, args.trust_configs)
    first = next(iter(runs.values())).config
    init_default_scope(first.get('default_scope', 'mmseg'))
    dataset = DATASETS.build({**first.val_dataloader.dataset, '_scope_': 'mmseg'})
    chosen = [dataset[index] for index in np.linspace(0, len(dataset) - 1, min(args.images, len(dataset))).astype(int)]
    classes, palette = dataset.metainfo['classes'], dataset.metainfo['palette']
    images = [item['inputs'].numpy().transpose(1, 2, 0) for item in chosen]
    truth = [item['data_samples'].gt_sem_seg.data[0].numpy() for item in chosen]
    if images[0].shape[:2] != truth[0].shape:
        raise ValueError('the test pipeline resizes images but not labels; draw from a config whose sizes agree.')
    columns = {'image': [image[..., ::-1] for image in images],
               'ground truth': [colorize(labels, palette) for labels in truth]}
    for name, run in runs.items():
        found = predictions(run, images, args.device)
        # Void has no prediction to compare with; painted as in the ground truth it does not distract.
        columns[name] = [colorize(np.where(labels == 255, 255, each), palette)
                         for each, labels in zip(found, truth, strict=True)]
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    draw_predictions(columns, classes, palette).savefig(out)
    print(out)


if __name__ == '__main__':
    main()
