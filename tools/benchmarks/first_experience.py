"""Measure what a new user sees: how long until something happens, how much is printed, how long nothing is said.

    python tools/benchmarks/first_experience.py [--out FILE.md]

Clones the repository into a temporary folder and runs the first commands there, with empty caches of compiled code, as
the installed command ``mmseg-kd`` would. Each is timed from the start of the process.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import describe_machine

ROOT = Path(__file__).resolve().parents[2]
TEACHER = 'mmseg_kd::demo/pspnet_r18-w32-d8_mini-cityscapes-64x128.py'
STUDENT = 'mmseg_kd::demo/fcn_r18-w16-d8_mini-cityscapes-64x128.py'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--iterations', type=int, default=100, help='of each training (default 100)')
    parser.add_argument('--pictures', type=int, default=24, help='training pictures that are made (default 24)')
    parser.add_argument('--first', type=int, metavar='N', help='only the first N commands (default: all)')
    parser.add_argument('--out', help='write the table to this file as well')
    return parser.parse_args()


def watch(arguments: list[str], folder: Path, environment: dict) -> dict:
    """Run a command; when it printed what.

    Returns:
        ``code``, ``seconds`` in all, ``lines``, ``silence`` (the longest time without a line before training),
        ``first`` and ``before``: seconds until the first logged step, and the lines before it (None without training).
    """
    start = last = time.perf_counter()
    process = subprocess.Popen([sys.executable, '-m', 'mmseg_kd', *arguments], cwd=folder, env=environment, text=True,
                               bufsize=1, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seen = dict(lines=0, silence=0., first=None, before=None)
    for line in process.stdout:
        now = time.perf_counter()
        if seen['first'] is None:  # what comes later is training, which reports at the pace of its config
            seen['silence'] = max(seen['silence'], now - last)
        if seen['first'] is None and 'Iter(train)' in line:
            seen.update(first=now - start, before=seen['lines'])
        seen['lines'] += 1
        last = now
    seen.update(code=process.wait(), seconds=time.perf_counter() - start)
    if seen['first'] is None:
        seen['silence'] = max(seen['silence'], time.perf_counter() - last)
    return seen


def main() -> None:
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        subprocess.run(['git', 'clone', '-q', str(ROOT), str(folder / 'clone')], check=True)
        environment = dict(os.environ, PYTHONPATH=str(folder / 'clone'), NUMBA_CACHE_DIR=str(folder / 'numba'))
        every_step = ['default_hooks.logger.interval=1']
        training = ['--cfg-options', *every_step, f'train_cfg.max_iters={args.iterations}',
                    f'train_cfg.val_interval={args.iterations}', f'default_hooks.checkpoint.interval={args.iterations}']
        distil = ['distil', '--student', STUDENT, '--teacher', 'work_dirs/teacher', '--method', 'dkd',
                  '--iterations', str(args.iterations)]
        options = ['--cfg-options', *every_step, 'teacher_check.min_miou=0.']
        commands = {
            'mmseg-kd --help': ['--help'],
            'mmseg-kd train --help': ['train', '--help'],
            'mmseg-kd make-data': ['make-data', 'data/mini_cityscapes', '--num-train', str(args.pictures), '--num-val',
                                   '8'],
            'mmseg-kd train (a teacher)': ['train', TEACHER, '--work-dir', 'work_dirs/teacher', *training],
            'mmseg-kd distil, the first on a machine': [*distil, '--work-dir', 'work_dirs/first', *options],
            'mmseg-kd distil, later': [*distil, '--work-dir', 'work_dirs/later', *options],
            'mmseg-kd distil, a wrong path': [*distil, '--teacher-checkpoint', 'nothing.pth', '--work-dir', 'wrong'],
            'mmseg-kd distil, a wrong method': [*distil, '--method', 'dkdd', '--work-dir', 'wrong']}
        rows = ['| command | seconds to the first step | lines before it | longest silence before it, s '
                '| seconds in all | lines |', '| --- | ---: | ---: | ---: | ---: | ---: |']
        for name, arguments in list(commands.items())[:args.first]:
            seen = watch(arguments, folder, environment)
            if (seen['code'] == 0) == ('wrong' in name):
                raise RuntimeError(f'{name}: ended with {seen["code"]}')
            first = ['-', '-'] if seen['first'] is None else [f'{seen["first"]:.1f}', str(seen['before'])]
            rows.append(f'| {name} | {first[0]} | {first[1]} | '
                        f'{seen["silence"]:.1f} | {seen["seconds"]:.1f} | {seen["lines"]} |')
            print(rows[-1], flush=True)
    text = '\n'.join(rows) + '\n'
    print(f'\n{text}')
    if args.out:
        Path(args.out).write_text(f'{text}\n{describe_machine("cpu")}\n')


if __name__ == '__main__':
    main()
