"""One run at a time in a work dir."""
import fcntl
import json
import logging
import os
import os.path as osp
import socket
from datetime import datetime

from mmengine.config import Config
from mmengine.logging import print_log

__all__ = ['lock_work_dir']

_NAME = '.running'
# Open as long as the process lives; the system takes the lock back when it ends, in whatever way.
_held: dict[str, object] = {}


def lock_work_dir(cfg: Config) -> None:
    """Take the work dir of a run for this process (the first one of a distributed run), until it ends.

    The lock is the system's, so that of a dead process does not stand in the way; the file ``.running`` says whose it
    is. ``work_dir_lock=False`` in the config does without.

    Raises:
        ValueError: another run has it; the message names its process, host and start.
    """
    if cfg.get('work_dir_lock') is False or int(os.environ.get('RANK', os.environ.get('SLURM_PROCID', 0))) != 0:
        return
    path = osp.abspath(osp.join(cfg.work_dir, _NAME))
    if path in _held:
        return
    os.makedirs(cfg.work_dir, exist_ok=True)
    file = open(path, 'a+')
    try:
        # Of the process: unlike flock's it does not live on in a loader worker.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.seek(0)
        raise ValueError(f'`work_dir`: a run is going on in {cfg.work_dir}: {_whose(file.read())}. Two would overwrite '
                         'the checkpoints of each other. Wait for it, stop it, or give another --work-dir.') from error
    except OSError as error:
        print_log(f'`work_dir`: {cfg.work_dir} is on a file system without locks ({error.strerror}); nothing keeps a '
                  'second run out.', logger='current', level=logging.WARNING)
        file.close()
        return
    file.truncate(0)
    file.write(json.dumps(dict(process=os.getpid(), host=socket.gethostname(),
                               since=datetime.now().isoformat(' ', 'seconds'))))
    file.flush()
    _held[path] = file


def _whose(text: str) -> str:
    try:
        owner = json.loads(text)
        return f'process {owner["process"]} on {owner["host"]}, since {owner["since"]}'
    except (ValueError, KeyError, TypeError):
        return 'of a process that has not said who it is'
