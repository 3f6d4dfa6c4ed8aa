"""Compare training runs: cost of inference, score over seeds, cost of training; as markdown and JSON.

    python tools/analysis/compare.py 'student=work_dirs/student_s0,work_dirs/student_s1' 'DKD=work_dirs/dkd_s0,...'

Parameters and FLOPs (one multiply-add is one) are the plain student's, at the size it trains at unless --size says
otherwise; s / step is the median of the log, data loading included; memory is the peak of the log: of the GPU, or on a
CPU of the process. Only what a training run leaves in its work dir is read.
"""
import argparse
import json
import math
import statistics
from pathlib import Path

import mmseg_kd  # noqa: F401 (before configs are read)
from mmseg_kd.commands.arguments import RUNS, add_trust_argument, name_and_runs
from mmseg_kd.evaluation.class_table import read_class_table
from mmseg_kd.evaluation.complexity import inference_cost, input_size
from mmseg_kd.evaluation.runs import read_run
from mmseg_kd.visualization.gains import draw_gains


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Compare training runs', epilog=__doc__.split('\n\n')[1])
    parser.add_argument('rows', nargs='+', metavar=RUNS,
                        help='a row of the table: its name and the work dirs of its runs, one a seed, or that of a '
                             'tools/test.py')
    parser.add_argument('--baseline', help='name of the row that gains are counted from: seed by seed where the runs '
                        'say theirs, else between the means')
    parser.add_argument('--metric', default='mIoU', help='metric of the validation (default mIoU)')
    parser.add_argument('--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'),
                        help='size that FLOPs are counted at (default: the size of the training images)')
    parser.add_argument('--classes', action='store_true', help='a second table: the IoU of each class, mean over seeds')
    parser.add_argument('--out', help='write the table to OUT.md and OUT.json, and with a baseline the gains as a '
                        'picture to OUT.png')
    add_trust_argument(parser)
    return parser.parse_args()


def summarise(name: str, work_dirs: list[str], metric: str, size: tuple[int, int] | None,
              trusted: bool = False) -> dict:
    """One row: of runs that trained alike but for the seed."""
    runs = [read_run(work_dir, trusted) for work_dir in work_dirs]
    for run in runs:
        if metric not in run.scores:
            raise ValueError(f'`--metric`: {metric!r} is not among {sorted(run.scores)} of {run.work_dir}.')
    if len({run.iterations for run in runs}) > 1:
        raise ValueError(f'{name}: its runs trained for {sorted({run.iterations for run in runs})} iterations; a mean '
                         'over them says nothing.')
    scores = [run.scores[metric] for run in runs]
    size = size or input_size(runs[0].config)
    inference = inference_cost(runs[0].config, size)
    memory = [run.peak_memory for run in runs if run.peak_memory is not None]
    return dict(
        name=name, parameters=inference.parameters, flops=inference.multiply_adds, size=list(size),
        iterations=runs[0].iterations,
        seeds=[run.config.get('randomness', {}).get('seed') for run in runs], scores=scores,
        mean=statistics.mean(scores), deviation=statistics.stdev(scores) if len(scores) > 1 else None,
        step_time=None if runs[0].step_time is None else statistics.median(run.step_time for run in runs),
        peak_memory_mib=max(memory, default=None), work_dirs=[str(run.work_dir) for run in runs])


def add_gains(rows: list[dict], baseline: str) -> list[str]:
    """Add each row's gain over the baseline: the mean over seeds that both have, else the difference of the means.

    Returns:
        What a reader of the gains must know, a sentence each.
    """
    base = next((row for row in rows if row['name'] == baseline), None)
    if base is None:
        raise ValueError(f"`--baseline`: expected one of {[row['name'] for row in rows]}, got {baseline!r}.")
    notes = []
    for row in rows:
        row['gains'], row['gain'] = [], row['mean'] - base['mean']
        if row is not base and len(row['scores']) != len(base['scores']):
            notes.append(f"{row['name']} has {_runs(row)}, {base['name']} has {_runs(base)}.")
        shared = [seed for seed in row['seeds'] if seed in base['seeds']]
        if not (_seeds_tell(row) and _seeds_tell(base) and shared):
            if row is not base:
                notes.append(f"{row['name']}: the gain is the difference of the means, because the runs cannot be "
                             f"paired by seed (seeds {row['seeds']} and {base['seeds']}).")
            continue
        pairs = [dict(zip(each['seeds'], each['scores'], strict=True)) for each in (row, base)]
        row['gains'] = [pairs[0][seed] - pairs[1][seed] for seed in shared]
        row['gain'] = statistics.mean(row['gains'])
        if len(shared) < max(len(row['seeds']), len(base['seeds'])):
            notes.append(f"{row['name']}: the gain is over the seeds {shared}, which both have.")
    return notes


def _seeds_tell(row: dict) -> bool:
    """Whether each run of a row has a seed of its own."""
    return None not in row['seeds'] and len(set(row['seeds'])) == len(row['seeds'])


def _runs(row: dict) -> str:
    return f"{len(row['scores'])} run{'s' * (len(row['scores']) > 1)}"


def table(rows: list[dict], metric: str) -> str:
    """The rows as a markdown table."""
    lines = [f'| | parameters | FLOPs | iterations | {metric} | gain | each seed | s / step | memory |',
             '| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: |']
    for row in rows:
        deviation = '' if row['deviation'] is None else f" ± {row['deviation']:.2f}"
        gain = f"{row['gain']:+.2f}" if 'gain' in row else ''
        each = ', '.join(f'{score:.2f}' for score in row['scores'])
        flops = '' if row['flops'] is None else f"{row['flops'] / 1e9:.3g} G"
        memory = '' if row['peak_memory_mib'] is None else f"{row['peak_memory_mib'] / 1024:.2f} GiB"
        trained = '' if row['iterations'] is None else f"{row['iterations']}"
        time = '' if row['step_time'] is None else f"{row['step_time']:.3f}"
        lines.append(f"| {row['name']} | {row['parameters'] / 1e6:.3f} M | {flops} | {trained} | "
                     f"{row['mean']:.2f}{deviation} | {gain} | {each} | {time} | {memory} |")
    return '\n'.join(lines)


def mean_class_scores(work_dirs: list[str], trusted: bool = False) -> dict[str, float]:
    """Class to its IoU, the mean over the runs in which it occurs; NaN where it occurs in none."""
    of_run = [read_class_table(work_dir, trusted=trusted) for work_dir in work_dirs]
    found = {name: [scores[name] for scores in of_run if not math.isnan(scores.get(name, math.nan))]
             for name in dict.fromkeys(name for scores in of_run for name in scores)}
    return {name: statistics.mean(scores) if scores else math.nan for name, scores in found.items()}


def class_table(rows: list[dict]) -> str:
    """The IoU of each class as a markdown table, one column a row of the other table.

    Classes stand in the order of their data set; one that occurs in no row is left out.
    """
    lines = ['| IoU | ' + ' | '.join(row['name'] for row in rows) + ' |', '| --- |' + ' ---: |' * len(rows)]
    of_row = [row['class_scores'] for row in rows]
    for name in dict.fromkeys(name for scores in of_row for name in scores):
        values = [scores.get(name, math.nan) for scores in of_row]
        if not all(map(math.isnan, values)):
            lines.append(f'| {name} | ' + ' | '.join(
                '' if math.isnan(value) else f'{value:.1f}' for value in values) + ' |')
    return '\n'.join(lines)


def main() -> None:
    args = parse_args()
    rows = []
    for row in args.rows:
        name, work_dirs = name_and_runs(row)
        rows.append(summarise(name, work_dirs, args.metric, args.size, args.trust_configs))
    notes = add_gains(rows, args.baseline) if args.baseline else []
    text = '\n\n'.join([table(rows, args.metric), *notes])
    if args.classes:
        for row in rows:
            row['class_scores'] = mean_class_scores(row['work_dirs'], args.trust_configs)
        text += '\n\n' + class_table(rows)
        for row in rows:
            row['class_scores'] = {name: score for name, score in row['class_scores'].items() if not math.isnan(score)}
    print(text)
    if args.out:
        out = Path(args.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.with_suffix('.md').write_text(text + '\n')
        # Metrics arrive as NumPy scalars through some evaluators.
        out.with_suffix('.json').write_text(json.dumps(rows, indent=1, default=float) + '\n')
        # A teacher's score is not a gain.
        shown = [row for row in rows if 'gain' in row and row['name'] != args.baseline and row['iterations']]
        if shown:
            draw_gains([row['name'] for row in shown], [row['gains'] or [row['gain']] for row in shown], args.baseline,
                       args.metric).savefig(out.with_suffix('.png'), facecolor='white')


if __name__ == '__main__':
    main()
