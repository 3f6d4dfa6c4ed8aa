"""Checkpoints that appear whole or not at all."""
import json
import logging
import os
import os.path as osp
import shutil
from collections.abc import Iterable

from mmengine.dist import barrier, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log

from mmseg_kd.registry import HOOKS

__all__ = ['SafeCheckpointHook']

_STAGE, _OUTDATED = '.unfinished', 'outdated.json'
# What a run that counts epochs leaves when it is stopped within one.
_STOPPED = 'stopped.pth'


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, safe from a stop at any moment.

    mmengine writes a checkpoint and the file ``last_checkpoint`` in place, and removes an outdated one first: a kill,
    or a full disk, leaves half a file, or none. Here both are written under ``.unfinished``, forced to the disk, and
    moved to their names, which a file system does at once; what is outdated goes last. So ``last_checkpoint`` always
    names a whole checkpoint (a folder, which FSDP writes, is moved by two renames if it replaces one of the same
    name). ``tools/train.py`` puts it in the place of ``CheckpointHook``; the arguments are the same.

    Remote storage has no names to move and is left to its backend.

    Raises:
        OSError: a checkpoint could not be written; the message names the one that is still there.
    """

    # Whether the files are ours to move; a run that only validates saves none.
    _local = False

    def before_train(self, runner) -> None:
        """Clear what an earlier stop left unfinished."""
        super().before_train(runner)
        self._local = '://' not in str(self.out_dir)
        if not self._local:
            return
        self.file_backend = _RemovesLater(self.file_backend)
        if is_main_process():
            _finish_removal(runner.work_dir, str(self.out_dir))
            for folder in {str(self.out_dir), runner.work_dir}:
                shutil.rmtree(osp.join(folder, _STAGE), ignore_errors=True)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """mmengine's, safely."""
        self._safely(runner, super().after_train_iter, batch_idx, data_batch, outputs)

    def after_train_epoch(self, runner) -> None:
        """mmengine's, safely."""
        self._safely(runner, super().after_train_epoch)

    def after_val_epoch(self, runner, metrics=None) -> None:
        """mmengine's, safely."""
        self._safely(runner, super().after_val_epoch, metrics)

    def save_now(self, runner, within_epochs: bool = True) -> str:
        """Save after an iteration, outside of the interval; to be called in ``after_train_iter``.

        Args:
            runner: The Runner.
            within_epochs: Whether a run can go on within an epoch (see :class:`~.exact_resume.ExactResumeHook`). If
                not, and the hook counts epochs, ``last_checkpoint`` remains that of the last epoch.

        Returns:
            Path of the checkpoint: ``stopped.pth`` where epochs are counted.
        """
        if self.by_epoch:
            self._safely(runner, self._save_within_epoch, within_epochs)
            return self.file_backend.join_path(self.out_dir, _STOPPED)
        if self.last_ckpt is None or osp.basename(self.last_ckpt) != self.filename_tmpl.format(runner.iter + 1):
            self._safely(runner, self._save_checkpoint)
        return self.last_ckpt

    def _save_within_epoch(self, runner, is_last: bool) -> None:
        runner.save_checkpoint(self.out_dir, _STOPPED, by_epoch=False)
        if is_last and is_main_process():
            with open(osp.join(runner.work_dir, 'last_checkpoint'), 'w') as file:
                file.write(self.file_backend.join_path(self.out_dir, _STOPPED))

    def _safely(self, runner, save, *args) -> None:
        if not self._local:
            save(runner, *args)
            return
        staged = _SavesAside(runner, self)
        save(staged, *args)
        staged.finish()


class _RemovesLater:
    """A file backend that notes what is to be removed."""

    def __init__(self, backend):
        self._backend = backend
        self.outdated: list[str] = []

    def __getattr__(self, name):
        return getattr(self.__dict__['_backend'], name)

    def remove(self, path) -> None:
        self.outdated.append(str(path))

    rmtree = remove


class _SavesAside:
    """A Runner as a checkpoint hook sees it, whose files are written aside and then moved."""

    def __init__(self, runner, hook: SafeCheckpointHook):
        self._runner = runner
        self._hook = hook
        self._saved: set[str] = set()

    def __getattr__(self, name):
        return getattr(self.__dict__['_runner'], name)

    @property
    def work_dir(self) -> str:
        """Where the hook writes ``last_checkpoint``."""
        stage = osp.join(self._runner.work_dir, _STAGE)
        os.makedirs(stage, exist_ok=True)
        return stage

    def save_checkpoint(self, out_dir, filename, *args, **kwargs) -> None:
        stage, target = osp.join(out_dir, _STAGE), osp.join(out_dir, filename)
        try:
            self._runner.save_checkpoint(stage, filename, *args, **kwargs)
            # Every process may have written its part.
            barrier()
            if is_main_process():
                _move(osp.join(stage, filename), target)
        except OSError as error:
            shutil.rmtree(stage, ignore_errors=True)
            last = osp.join(self._runner.work_dir, 'last_checkpoint')
            kept = open(last).read().strip() if osp.isfile(last) else 'none'
            raise OSError(error.errno, f'`default_hooks.checkpoint`: {target} could not be written ({error.strerror}). '
                                       f'The last whole checkpoint is untouched: {kept}. Free space and continue with '
                                       '--resume') from error
        self._saved.add(target)

    def finish(self) -> None:
        """Move ``last_checkpoint`` in, then remove what is outdated."""
        backend = self._hook.file_backend
        # A validation that is repeated saves the best under the name it had.
        outdated = [path for path in backend.outdated if path not in self._saved]
        backend.outdated.clear()
        # Which these are, mmengine has from the message hub, and that from the checkpoint that was resumed.
        outdated = _checkpoints_in(str(self._hook.out_dir), outdated)
        work_dir = self._runner.work_dir
        if not is_main_process():
            return
        # mmengine forgets what is outdated as it saves; a run that is stopped here finds it written down.
        journal, pointer = osp.join(self.work_dir, _OUTDATED), osp.join(self.work_dir, 'last_checkpoint')
        if not outdated and not osp.isfile(pointer):
            return
        with open(journal, 'w') as file:
            json.dump([osp.basename(path) for path in outdated], file)
        if osp.isfile(pointer):
            _move(pointer, osp.join(work_dir, 'last_checkpoint'))
        _remove(outdated)
        os.remove(journal)


def _checkpoints_in(folder: str, paths: Iterable[object]) -> list[str]:
    """Those of the paths that are checkpoints right inside of a folder; the others stay, and the log says so."""
    inside = []
    for path in paths:
        name = osp.basename(path) if isinstance(path, str) else ''
        here = osp.join(folder, name)
        if name.endswith('.pth') and (path == name or osp.abspath(path) == osp.abspath(here)):
            inside.append(here)
        else:
            print_log(f'`default_hooks.checkpoint`: {path!r} is said to be outdated, which is no checkpoint in '
                      f'{folder}; it is not removed.', logger='current', level=logging.WARNING)
    return inside


def _finish_removal(work_dir: str, folder: str) -> None:
    """Remove the checkpoints that a stopped run wrote down as outdated, but never the one ``last_checkpoint`` names."""
    journal, pointer = osp.join(work_dir, _STAGE, _OUTDATED), osp.join(work_dir, 'last_checkpoint')
    try:
        with open(journal) as file:
            outdated = json.load(file)
    except (OSError, ValueError):
        return
    if osp.isfile(pointer):
        with open(pointer) as file:
            last = osp.abspath(file.read().strip())
        _remove([path for path in _checkpoints_in(folder, outdated if isinstance(outdated, list) else [])
                 if osp.abspath(path) != last])
    os.remove(journal)


def _remove(paths: list[str]) -> None:
    for path in paths:
        if osp.isdir(path) and not osp.islink(path):
            shutil.rmtree(path)
        elif osp.lexists(path):
            os.remove(path)


def _move(source: str, target: str) -> None:
    """Give a finished file or folder its name, after its content has reached the disk."""
    files = [osp.join(source, name) for name in os.listdir(source)] if osp.isdir(source) else [source]
    for path in files:
        _sync(path)
    if osp.isdir(source) and osp.isdir(target):
        old = f'{source}.old'
        os.rename(target, old)
        os.rename(source, target)
        shutil.rmtree(old)
    else:
        os.replace(source, target)
    _sync(osp.dirname(target))


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
