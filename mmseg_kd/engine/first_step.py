"""The first step of a training: what takes long is said before it begins, and does not count as the step's."""
import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.hooks import Hook, IterTimerHook

from mmseg_kd.registry import HOOKS

__all__ = ['FirstStepHook']


@HOOKS.register_module()
class FirstStepHook(Hook):
    """Say that the first step begins, and keep the compilation of the losses out of the log's time and memory.

    Without a GPU the losses are machine code that numba makes when a step first wants it, once per machine and kind of
    loss. This takes some ten seconds and some hundred MiB. The log says so before it begins; the step's ``time``, the
    remaining time that follows from it, and on Linux the peak ``memory`` are only those of the step. The remaining
    time follows from the second step on: the first one also loads and allocates what the others have.
    ``tools/train.py`` adds this hook to every run; ``--cfg-options first_step=False`` leaves it out.
    """

    # After the step, before IterTimerHook and PeakMemoryHook, which are NORMAL.
    priority = 'ABOVE_NORMAL'

    def __init__(self):
        self._stop_listening = lambda: None
        self._compiling = 0  # how many compilations are under way: one leads to others
        self._began = self._seconds = 0.
        self._done = threading.Event()
        self._steps = 0

    def before_train(self, runner) -> None:
        """Listen to numba where it will be wanted."""
        def notice(starts: bool) -> None:
            self._compiling += 1 if starts else -1
            if starts and self._compiling == 1:
                self._began = time.perf_counter()
                if not self._seconds:
                    runner.logger.info('Compiling the losses for this CPU, once per machine and kind of loss. It takes '
                                       '10 to 60 s, and does not count in the times below.')
                    self._done.clear()
                    threading.Thread(target=self._say_that_it_goes_on, args=(runner.logger, self._began),
                                     daemon=True).start()
            elif not starts and self._compiling == 0:
                self._seconds += time.perf_counter() - self._began

        if not torch.cuda.is_available():
            self._stop_listening = _listen_to_numba(notice)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Say that the first step begins."""
        self._seconds = 0.
        self._steps += 1
        if self._steps == 1:
            runner.logger.info('The first step begins. It takes longer than the next ones.')
        for hook in runner.hooks:
            if self._steps == 2 and isinstance(hook, IterTimerHook):
                hook.time_sec_tot, hook.start_iter = 0., hook.start_iter + 1

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Take the compilation out of what the other hooks are about to measure."""
        self._done.set()
        if not self._seconds:
            return
        runner.logger.info(f'Compiled in {self._seconds:.1f} s.')
        for hook in runner.hooks:
            if isinstance(hook, IterTimerHook):
                hook.t += self._seconds
        with contextlib.suppress(OSError):  # not Linux, or not allowed
            Path('/proc/self/clear_refs').write_text('5')  # the peak begins anew at what is resident now

    def _say_that_it_goes_on(self, logger, began: float) -> None:
        while not self._done.wait(5.):
            logger.info(f'Compiling, for {time.perf_counter() - began:.0f} s now.')

    def after_train(self, runner) -> None:
        """Leave numba alone."""
        self._done.set()
        self._stop_listening()


def _listen_to_numba(notice: Callable[[bool], None]) -> Callable[[], None]:
    """Call ``notice`` with True when numba begins to compile, with False when it has; returns what ends that."""
    try:
        from numba.core import event
    except Exception:  # where numba is broken the losses take their plain form, and say so
        return lambda: None

    class Listener(event.Listener):
        """Both ends of a compilation."""

        def on_start(self, event) -> None:
            notice(True)

        def on_end(self, event) -> None:
            notice(False)

    listener = Listener()
    event.register('numba:compile', listener)
    return lambda: event.unregister('numba:compile', listener)
