"""Ending a run in good order when the system asks for it."""
import logging
import os
import signal
import threading

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log

from mmseg_kd.registry import HOOKS

from .exact_resume import ExactResumeHook
from .safe_checkpoint import SafeCheckpointHook

__all__ = ['StopSignalHook']

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@HOOKS.register_module()
class StopSignalHook(Hook):
    """On SIGTERM or SIGINT finish the step, save a checkpoint and exit with status 128 + signal.

    With gradient accumulation the step is the whole of it. A second signal ends the process at once. Loader workers
    outlive a signal that goes to the whole process group, as schedulers and terminals send it, so that the step, or the
    validation that runs, can end. All processes of a run stop after the same step: they exchange one number per step. A
    scheduler must leave time for one step (a validation, if one runs) and one checkpoint; torchrun waits 30 s before it
    kills. ``tools/train.py`` adds this hook to every run.

    Raises:
        SystemExit: when the run has been stopped.
    """

    # After the checkpoint hook, which may just have saved.
    priority = 'LOWEST'

    def __init__(self):
        self._received: int | None = None
        self._handlers: dict = {}

    def before_train(self, runner) -> None:
        """Take over the signals, which only the main thread receives, and keep them from loader workers."""
        loops = [runner.train_loop, *([runner.val_loop] if runner.val_loop is not None else [])]
        for loop in loops:
            loader = loop.dataloader
            if not isinstance(loader.worker_init_fn, _Shielded):
                loader.worker_init_fn = _Shielded(loader.worker_init_fn)
        try:
            self._handlers = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        except ValueError:
            print_log('Not in the main thread: SIGTERM and SIGINT are not handled.', logger='current',
                      level=logging.WARNING)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Stop here, where the weights are those of a finished step."""
        received = self._received or 0
        if get_world_size() > 1:
            flag = torch.tensor(received)
            all_reduce(flag, op='max')
            received = int(flag)
        if not received or (runner.iter + 1) % getattr(runner.optim_wrapper, '_accumulative_counts', 1):
            return
        name = signal.Signals(received).name
        hook = next((hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook)), None)
        if hook is None:
            saved = "no checkpoint: the run has no default_hooks.checkpoint of type 'mmseg_kd.SafeCheckpointHook'"
        else:
            exact = any(isinstance(each, ExactResumeHook) and each.within_epochs for each in runner.hooks)
            saved = f'checkpoint: {hook.save_now(runner, exact)}; continue with --resume'
            if hook.by_epoch and not exact:
                saved += ', which goes on from the last whole epoch'
        runner.logger.warning(f'{name}: stopped after iteration {runner.iter + 1}; {saved}')
        self._restore()
        raise SystemExit(128 + received)

    def after_train(self, runner) -> None:
        """Give the signals back."""
        self._restore()

    def _receive(self, number, frame) -> None:
        self._received = number
        # The next one meets what was there before us.
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}


class _Shielded:
    """A loader worker's start, after which only its main process can end it by a signal.

    That is told by the sender, which Linux gives with a signal; on other systems a worker is not shielded.
    """

    def __init__(self, init_fn=None):
        self.init_fn = init_fn

    def __call__(self, worker_id: int) -> None:
        if hasattr(signal, 'sigwaitinfo'):
            # Blocked here, and so in each thread that the worker begins from now on; the thread takes them one by one.
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            threading.Thread(target=_obey, args=(os.getppid(),), daemon=True).start()
        if self.init_fn is not None:
            self.init_fn(worker_id)


def _obey(main_process: int) -> None:
    while signal.sigwaitinfo(_SIGNALS).si_pid != main_process:
        pass
    os._exit(0)  # torch takes any other status for a worker that failed
