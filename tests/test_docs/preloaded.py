"""Runs python scripts one after the other, each in a fork of a process that has imported torch and mmseg once.

Reads lines of JSON (argv, cwd, env, out), answers each with the exit status.
"""
import json
import os
import runpy
import sys
import traceback
from pathlib import Path

answers = os.fdopen(os.dup(1), 'w')
os.dup2(2, 1)  # what the imports below print is no answer

import mmseg.apis  # noqa: E402, F401
import mmseg.datasets  # noqa: E402
import mmseg.models  # noqa: E402, F401
import torch  # noqa: E402, F401

import mmseg_kd  # noqa: E402, F401

ITERATIONS = 2


def shortened(argv: list[str], options: list[str]) -> tuple[list[str], Path, int]:
    """A training command of a few iterations, its work dir, and how many iterations were asked for."""
    from mmengine.config import Config
    config = argv[1]
    try:
        wanted = int(argv[argv.index('--iterations') + 1]) if '--iterations' in argv else 0
        wanted = wanted or Config.fromfile(config).train_cfg.max_iters
    except KeyError:  # the reader is shown how this config is refused
        return argv, Path('work_dirs'), ITERATIONS
    for word in argv:
        if word.startswith('train_cfg.max_iters='):
            wanted = int(word.partition('=')[2])
    options = [f'train_cfg.max_iters={ITERATIONS}', f'train_cfg.val_interval={ITERATIONS}',
               f'default_hooks.checkpoint.interval={ITERATIONS}', 'default_hooks.logger.interval=1', *options]
    # argparse keeps the last --cfg-options alone, so these join the reader's own.
    at = argv.index('--cfg-options') + 1 if '--cfg-options' in argv else None
    if at is None:
        argv = [*argv, '--cfg-options', *options]
    else:
        end = next((i for i in range(at, len(argv)) if argv[i].startswith('--')), len(argv))
        argv = [*argv[:end], *options, *argv[end:]]
    work_dir = argv[argv.index('--work-dir') + 1] if '--work-dir' in argv else f'work_dirs/{Path(config).stem}'
    return argv, Path(work_dir), wanted


def run(argv: list[str], options: list[str]) -> int:
    """One script, as `python argv` runs it; a training is shortened, and ends under the name that was asked for."""
    work_dir = None
    try:
        if argv[0] in ('tools/train.py', 'tools/distil.py'):
            argv, work_dir, wanted = shortened(argv, options)
        sys.argv, sys.path[0] = argv, str(Path(argv[0]).resolve().parent)
        runpy.run_path(argv[0], run_name='__main__')
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    if work_dir and not code:
        checkpoint = work_dir / f'iter_{ITERATIONS}.pth'
        if not (work_dir / f'iter_{wanted}.pth').exists():
            os.link(checkpoint, work_dir / f'iter_{wanted}.pth')
    return code


def main() -> None:
    print('ready', file=answers, flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        child = os.fork()
        if not child:
            os.chdir(task['cwd'])
            os.environ.update(task['env'])
            sys.path[1:1] = [os.path.abspath(path) for path in task['env'].get('PYTHONPATH', '').split(':') if path]
            out = os.open(task['out'], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            code = run(task['argv'], task['options'])
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == '__main__':
    main()
