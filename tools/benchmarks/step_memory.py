"""Peak memory of a distilled training step on a CPU beside the student's step and the teacher's forward pass.

    python tools/benchmarks/step_memory.py [CONFIG] [--size 256 512] [--batch-size 4] [--out FILE]

CONFIG is a distilled config (default: the quickstart's DKD); weights and pictures are random. Each figure is the peak
of the resident memory of a process of its own during its third step, beyond what it held before: model, gradients and
optimizer state are there already. On a GPU distill_step.py shows the peak of each step.
"""
import argparse
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

from distill_step import QUICKSTART, first_match, parts_of  # noqa: E402
from machine import describe_machine  # noqa: E402
from resident import EXACT, extra_peak  # noqa: E402

#: What is measured; the last one against the sum of the two that SUM names.
STEPS = ('student alone', 'student alone, upsample_in_loss', 'teacher alone', 'distilled, plain losses', 'distilled',
         'distilled, upsample_in_loss')
SUM = 'student alone, upsample_in_loss', 'teacher alone'
TARGET = 1.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', nargs='?', type=Path)
    parser.add_argument('--batch-size', type=int, default=4)
    parser.add_argument('--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), default=(256, 512))
    parser.add_argument('--out', type=Path)
    parser.add_argument('--only', choices=STEPS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.device = 'cpu'
    if args.only:
        logging.disable(logging.WARNING)
        run = parts_of(args.config, args)[args.only]()
        run()
        run()
        print(extra_peak(run))
        return
    path = args.config or first_match(QUICKSTART[0])
    result = dict(machine=describe_machine('cpu'), config=path.name, size=list(args.size), batch_size=args.batch_size,
                  peak_extra_bytes={})
    print(f'{path.name}, {args.batch_size} x {args.size[0]} x {args.size[1]}', flush=True)
    for name in STEPS:
        command = [sys.executable, '-W', 'ignore', __file__, str(path), '--only', name, '--batch-size',
                   str(args.batch_size), '--size', *map(str, args.size)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **EXACT})
        if done.returncode:
            raise SystemExit(f'no figures: {name} failed:\n{done.stderr[-3000:]}')
        peak = result['peak_extra_bytes'][name] = int(done.stdout.split()[-1])
        print(f'{name:>32}: {peak / 2**20:7.0f} MiB', flush=True)
    peaks = result['peak_extra_bytes']
    ratio = result['times_student_and_teacher'] = peaks[STEPS[-1]] / sum(peaks[name] for name in SUM)
    print(f'{STEPS[-1]}: x{ratio:.3f} of {" + ".join(SUM)} (target {TARGET})')
    print(json.dumps(result))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1))


if __name__ == '__main__':
    main()
