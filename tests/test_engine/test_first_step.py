"""What numba compiles in a step is announced, and is part of neither its time nor the memory's peak."""
import logging
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import IterTimerHook
from mmengine.logging import MessageHub

from mmseg_kd.engine import FirstStepHook, PeakMemoryHook
from mmseg_kd.engine.peak_memory import _peak_resident

event = pytest.importorskip('numba.core.event')
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason='with a GPU the losses are not compiled by numba')


def step(runner, hooks, work):
    """One training step as mmengine's loop runs it, hooks by their priority."""
    for when in ('before_train_iter', 'after_train_iter'):
        for hook in sorted(hooks, key=lambda hook: ('ABOVE_NORMAL', 'NORMAL').index(hook.priority)):
            getattr(hook, when)(runner, batch_idx=runner.iter)
        if when == 'before_train_iter':
            work()
    runner.iter += 1
    return runner.message_hub.get_scalar('train/time').current(), runner.message_hub.get_info('eta')


@pytest.fixture
def run(caplog):
    caplog.set_level(logging.INFO)
    hooks = [IterTimerHook(), PeakMemoryHook(), FirstStepHook()]
    runner = SimpleNamespace(iter=0, max_iters=11, hooks=hooks, logger=logging.getLogger('first_step'),
                             message_hub=MessageHub.get_instance(f'first_step_{time.time()}'))
    hooks[0].before_train(runner)
    hooks[2].before_train(runner)
    hooks[0]._before_epoch(runner)
    yield runner, hooks
    hooks[2].after_train(runner)


def test_compilation_is_said_and_does_not_count(run, caplog):
    runner, hooks = run

    def compiles():
        time.sleep(0.1)
        with event.trigger_event('numba:compile'):
            assert caplog.text.count('Compiling the losses for this CPU') == 1
            with event.trigger_event('numba:compile'):  # one leads to another
                held = np.ones(40_000_000)  # 305 MiB
                time.sleep(4.)
            del held

    before = _peak_resident()
    seconds, remaining = step(runner, hooks, compiles)
    assert 0.1 <= seconds < 3.5 and remaining == pytest.approx(10 * seconds)
    assert 'The first step begins' in caplog.text and 'Compiled in ' in caplog.text
    assert runner.message_hub.get_scalar('train/memory').current() < before + 150
    # A step that compiles nothing is timed as it is, and the first one says nothing about the time that remains.
    seconds, remaining = step(runner, hooks, lambda: time.sleep(0.2))
    assert 0.2 <= seconds < 1.5 and remaining == pytest.approx(9 * seconds) and caplog.text.count('Compil') == 2
