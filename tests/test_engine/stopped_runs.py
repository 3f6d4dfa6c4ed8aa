"""Runs that are killed, stopped or out of disk, again and again; test_hard_stops.py starts it.

    python stopped_runs.py FOLDER DATA_ROOT

Imports everything once and forks a child per run, which costs a second where a fresh interpreter costs six. Writes what
it saw to FOLDER/seen.json and leaves the runs' folders.
"""
import json
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

import mmseg.datasets  # noqa: F401 (this and torch._dynamo: a run imports them late)
import numpy as np
import torch
import torch._dynamo  # noqa: F401
from mmengine.config import Config
from mmengine.runner import Runner
from tiny import distilled, run_config, segmentor

from mmseg_kd.datasets.teacher_cache import CachedMap, TeacherCache
from mmseg_kd.engine.runner_defaults import add_training_hooks, use_teacher_cache

KILLS, ITERATIONS = 20, 50
FOLDER, DATA = Path(sys.argv[1]), sys.argv[2]


# Formatting the config takes longer than all else, at each start and for each checkpoint.
Config.pretty_text = property(repr)


def make_cache():
    """What a teacher might have said about the training pictures."""
    cache, chance = TeacherCache(FOLDER / 'cache'), np.random.default_rng(0)
    cache.begin(dict(checkpoint_sha256=None, classes=19, top_k=None, align_corners=False))
    pictures = sorted(Path(DATA).glob('leftImg8bit/train/**/*.png'))
    for picture in pictures:
        logits = chance.normal(size=(19, 8, 16)).astype(np.float32)
        cache.write(str(picture), CachedMap(logits, False, (32, 64), (32, 64)))
    cache.finish(len(pictures))


def runner_for(name, **checkpoint):
    """The Runner of tools/train.py --resume, with a cached teacher."""
    config = run_config(distilled(segmentor(4), segmentor(4, 'PSPHead')), DATA, max_iters=ITERATIONS,
                        work_dir=str(FOLDER / name), resume=True, experiment_name=f'{name}{time.time()}',
                        visualizer=dict(type='Visualizer', name=name, vis_backends=[dict(type='LocalVisBackend')]))
    config.default_hooks.checkpoint.update(checkpoint)
    # Validation would take half of the time and tests nothing here.
    config.val_dataloader = config.val_evaluator = config.val_cfg = None
    config.model.teacher = dict(cache=str(FOLDER / 'cache'))
    use_teacher_cache(config)
    add_training_hooks(config)
    return Runner.from_cfg(config)


def train(name, before=lambda: None, **checkpoint):
    """Run in this process."""
    runner = runner_for(name, **checkpoint)
    before()
    runner.train()


def fork(name, before=lambda: None, **checkpoint):
    """A child that trains; its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        log = os.open(FOLDER / f'{name}.log', os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        torch.set_num_threads(1)
        train(name, before, **checkpoint)
        status = 0
    except SystemExit as error:
        status = error.code
    except BaseException as error:
        print(f'{type(error).__name__}: {error}', flush=True)
    os._exit(status)


def wait(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def last_iteration(name):
    pointer = FOLDER / name / 'last_checkpoint'
    return int(Path(pointer.read_text()).stem.removeprefix('iter_')) if pointer.exists() else 0


def whole(name):
    """Whether the run's last checkpoint, if it says that there is one, can be read."""
    pointer = FOLDER / name / 'last_checkpoint'
    try:
        return not pointer.exists() or 'optimizer' in torch.load(pointer.read_text(), weights_only=False)
    except Exception as error:  # whatever it is, it is what the test is about
        return repr(error)


def wait_until(condition, child, patience=60):
    end = time.time() + patience
    while not condition():
        if os.waitpid(child, os.WNOHANG)[0] or time.time() > end:
            raise AssertionError('the run ended before it could be stopped')
        time.sleep(0.0005)


def killed_again_and_again():
    chance, seen = random.Random(0), []
    stage = FOLDER / 'killed/.unfinished'
    for number in range(KILLS):
        start = last_iteration('killed')
        child = fork('killed', interval=1, max_keep_ckpts=1)
        if number % 2:
            # In the middle of a file: as soon as the next one but one begins to be written.
            wait_until(lambda start=start: last_iteration('killed') > start, child)
            wait_until(lambda: any(stage.glob('iter_*.pth')), child)
        elif number in (4, 12):
            time.sleep(chance.uniform(0, 1))  # while it starts
        else:
            wait_until(lambda start=start: last_iteration('killed') > start, child)
            time.sleep(chance.uniform(0, 0.08))
        os.kill(child, signal.SIGKILL)
        assert wait(child) == -signal.SIGKILL
        seen.append(dict(iteration=last_iteration('killed'), writing=any(stage.glob('iter_*.pth')),
                         whole=whole('killed')))
    assert wait(fork('killed', interval=1, max_keep_ckpts=1)) == 0
    return seen


def stopped(name, number):
    child = fork(name, interval=10 * ITERATIONS)
    log = FOLDER / f'{name}.log'
    wait_until(lambda: log.exists() and b'Iter(train)' in log.read_bytes(), child)
    os.kill(child, number)
    seen = dict(status=wait(child), iteration=last_iteration(name), whole=whole(name))
    assert wait(fork(name, interval=10 * ITERATIONS)) == 0
    return seen


def out_of_disk():
    """A limit of the size of a file stands for a full disk: both leave the beginning of the file and an OSError."""
    child = fork('full', interval=1)
    wait_until(lambda: last_iteration('full') >= 2, child)
    os.kill(child, signal.SIGTERM)
    wait(child)
    before = last_iteration('full')
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # noqa: E731
    status = wait(fork('full', limit, interval=1))
    return dict(before=before, status=status, after=last_iteration('full'), whole=whole('full'),
                left=[path.name for path in (FOLDER / 'full').glob('.unfinished/*')])


if __name__ == '__main__':
    make_cache()
    teacher = runner_for('none').model.teacher  # imports whatever is imported late
    assert wait(fork('straight', interval=10 * ITERATIONS)) == 0
    seen = dict(teacher=repr(teacher), kills=killed_again_and_again(), sigterm=stopped('sigterm', signal.SIGTERM),
                sigint=stopped('sigint', signal.SIGINT), full=out_of_disk())
    (FOLDER / 'seen.json').write_text(json.dumps(seen))
