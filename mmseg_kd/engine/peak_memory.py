"""Peak memory in the log of a run without a GPU."""
import sys
from pathlib import Path

import torch
from mmengine.hooks import Hook

from mmseg_kd.registry import HOOKS

__all__ = ['PeakMemoryHook']


@HOOKS.register_module()
class PeakMemoryHook(Hook):
    """Log ``memory`` on a CPU, as mmengine does on a GPU: the peak so far, in MiB.

    Here it is the peak resident memory of the process, libraries and data loading included; worker processes are not.
    With a GPU, and where the platform does not tell (Windows), the hook does nothing.
    """

    # Before LoggerHook writes the log.
    priority = 'NORMAL'

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Note the peak."""
        peak = _peak_resident()
        if peak is not None and not torch.cuda.is_available():
            runner.message_hub.update_scalar('train/memory', peak)


def _peak_resident() -> int | None:
    """Peak resident memory of this process in MiB."""
    try:
        # Only of this program: what getrusage says on Linux begins with the process that started it.
        for line in Path('/proc/self/status').read_text().splitlines():
            if line.startswith('VmHWM'):
                return int(line.split()[1]) // 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1024**2 if sys.platform == 'darwin' else 1024)
