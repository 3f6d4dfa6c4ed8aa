"""Compare training runs: cost of inference, score over seeds, cost of training; as markdown and JSON.

    python tools/analysis/compare.py 'student=work_dirs/student_s0,work_dirs/student_s1' 'DKD=work_dirs/dkd_s0,...'

Parameters and FLOPs (one multiply-add is one) are the plain student's, at the size it trains at unless --size says
otherwise; s / step is the median of the log, data loading included; memory is the peak of the log: of the GPU, or on a
CPU of the process. Only what a training run leaves in its work dir is read.
"""
import argparse
import json
import statistics
from pathlib import Path

from mmengine.registry import DefaultScope
from mmengine.utils import import_modules_from_strings

import mmseg_kd  # noqa: F401 (before configs are read)
from mmseg_kd.config import student_config
from mmseg_kd.evaluation.class_table import read_class_scores
from mmseg_kd.evaluation.complexity import Complexity, complexity, input_size
from mmseg_kd.evaluation.runs import Run, read_run
from mmseg_kd.registry import MODELS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Compare training runs', epilog=__doc__.split('\n\n')[1])
    parser.add_argument('rows', nargs='+', metavar='NAME=WORK_DIR[,WORK_DIR...]',
                        help='a row of the table: its name and the work dirs of its runs, one a seed')
    parser.add_argument('--baseline', help='name of the row that gains are counted from, seed by seed')
    parser.add_argument('--metric', default='mIoU', help='metric of the validation (default mIoU)')
    parser.add_argument('--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'),
                        help='size that FLOPs are counted at (default: the size of the training images)')
    parser.add_argument('--classes', action='store_true', help='a second table: the IoU of each class, mean over seeds')
    parser.add_argument('--out', help='write the table to OUT.md and OUT.json')
    return parser.parse_args()


def cost(run: Run, size: tuple[int, int]) -> Complexity:
    """Parameters and FLOPs of the student's inference."""
    scope = run.config.get('default_scope', 'mmseg')
    import_modules_from_strings([f'{scope}.models'])
    with DefaultScope.overwrite_default_scope(scope):
        return complexity(MODELS.build(student_config(run.config.model)), size)


def summarise(name: str, work_dirs: list[str], metric: str, size: tuple[int, int] | None) -> dict:
    """One row: of runs that trained alike but for the seed."""
    runs = [read_run(work_dir) for work_dir in work_dirs]
    for run in runs:
        if metric not in run.scores:
            raise ValueError(f'`--metric`: {metric!r} is not among {sorted(run.scores)} of {run.work_dir}.')
    if len({run.iterations for run in runs}) > 1:
        raise ValueError(f'{name}: its runs trained for {sorted({run.iterations for run in runs})} iterations; a mean '
                         'over them says nothing.')
    scores = [run.scores[metric] for run in runs]
    size = size or input_size(runs[0].config)
    inference = cost(runs[0], size)
    memory = [run.peak_memory for run in runs if run.peak_memory is not None]
    return dict(
        name=name, parameters=inference.parameters, flops=inference.multiply_adds, size=list(size),
        iterations=runs[0].iterations,
        seeds=[run.config.get('randomness', {}).get('seed') for run in runs], scores=scores,
        mean=statistics.mean(scores), deviation=statistics.stdev(scores) if len(scores) > 1 else None,
        step_time=statistics.median(run.step_time for run in runs),
        peak_memory_mib=max(memory, default=None), work_dirs=[str(run.work_dir) for run in runs])


def add_gains(rows: list[dict], baseline: str) -> None:
    """Add each row's gain over the baseline, seed by seed."""
    base = next((row for row in rows if row['name'] == baseline), None)
    if base is None:
        raise ValueError(f"`--baseline`: expected one of {[row['name'] for row in rows]}, got {baseline!r}.")
    of_seed = dict(zip(base['seeds'], base['scores'], strict=True))
    for row in rows:
        pairs = zip(row['seeds'], row['scores'], strict=True)
        row['gains'] = [score - of_seed[seed] for seed, score in pairs if seed in of_seed]


def table(rows: list[dict], metric: str) -> str:
    """The rows as a markdown table."""
    lines = [f'| | parameters | FLOPs | iterations | {metric} | gain | each seed | s / step | memory |',
             '| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: |']
    for row in rows:
        deviation = '' if row['deviation'] is None else f" ± {row['deviation']:.2f}"
        gains = row.get('gains') or []
        gain = f'{statistics.mean(gains):+.2f}' if gains else ''
        each = ', '.join(f'{score:.2f}' for score in row['scores'])
        flops = '' if row['flops'] is None else f"{row['flops'] / 1e9:.3g} G"
        memory = '' if row['peak_memory_mib'] is None else f"{row['peak_memory_mib'] / 1024:.2f} GiB"
        lines.append(f"| {row['name']} | {row['parameters'] / 1e6:.3f} M | {flops} | {row['iterations']} | "
                     f"{row['mean']:.2f}{deviation} | {gain} | {each} | {row['step_time']:.3f} | {memory} |")
    return '\n'.join(lines)


def mean_class_scores(work_dirs: list[str]) -> dict[str, float]:
    """Class to its IoU, the mean over runs."""
    scores = [read_class_scores(work_dir) for work_dir in work_dirs]
    return {name: statistics.mean(score[name] for score in scores if name in score) for name in scores[0]}


def class_table(rows: list[dict]) -> str:
    """The IoU of each class as a markdown table, one column a row of the other table."""
    lines = ['| IoU | ' + ' | '.join(row['name'] for row in rows) + ' |', '| --- |' + ' ---: |' * len(rows)]
    for name in rows[0]['class_scores']:
        scores = (row['class_scores'].get(name) for row in rows)
        lines.append(f'| {name} | ' + ' | '.join('' if score is None else f'{score:.1f}' for score in scores) + ' |')
    return '\n'.join(lines)


def main() -> None:
    args = parse_args()
    rows = []
    for row in args.rows:
        name, separator, work_dirs = row.partition('=')
        if not separator or not work_dirs:
            raise ValueError(f'`rows`: expected NAME=WORK_DIR[,WORK_DIR...], got {row!r}.')
        rows.append(summarise(name, work_dirs.split(','), args.metric, args.size))
    if args.baseline:
        add_gains(rows, args.baseline)
    text = table(rows, args.metric)
    if args.classes:
        for row in rows:
            row['class_scores'] = mean_class_scores(row['work_dirs'])
        text += '\n\n' + class_table(rows)
    print(text)
    if args.out:
        out = Path(args.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.with_suffix('.md').write_text(text + '\n')
        # Metrics arrive as NumPy scalars through some evaluators.
        out.with_suffix('.json').write_text(json.dumps(rows, indent=1, default=float) + '\n')


if __name__ == '__main__':
    main()
