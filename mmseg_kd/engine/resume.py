"""Which checkpoint a resumed run goes on from, and what has changed since it was written."""
import logging
import os
import os.path as osp
import re
from collections.abc import Iterator

from mmengine.config import Config
from mmengine.logging import print_log

from mmseg_kd.safe_load import Refused, load_without_code, parse_config_without_code

__all__ = ['changed_settings', 'choose_checkpoint']

_STEP = re.compile(r'(?:iter|epoch)_(\d+)(?:\.pth)?')
# What decides what a run learns from, and how.
_OBJECTIVE = ('model', 'optim_wrapper', 'param_scheduler', 'train_dataloader', 'randomness')


def choose_checkpoint(cfg: Config) -> None:
    """Let ``--resume`` go on from the newest whole checkpoint of the work dir, and say when that is not the last one.

    mmengine takes what ``last_checkpoint`` names, and starts anew where that file is missing. Here a checkpoint that is
    gone, cut off or damaged is passed over for the one before. One without optimizer or iteration cannot be continued;
    with ``resume_incomplete = True`` its weights begin a new run.

    Args:
        cfg: The config of the run; ``load_from`` and ``resume`` are changed in place.

    Raises:
        ValueError: there are checkpoints and none can be continued from, or one holds more than data.
    """
    if not cfg.get('resume'):
        return
    if cfg.get('load_from') is not None:
        if osp.isfile(cfg.load_from):
            _check_complete(cfg, cfg.load_from, _load(cfg, cfg.load_from, 'load_from'))
        return
    last, reasons = _last(cfg.work_dir), []
    candidates = list(dict.fromkeys([*([last] if last else []), *_checkpoints(cfg.work_dir)]))
    if not candidates:
        print_log(f'`--resume`: there is no checkpoint in {cfg.work_dir}; the run starts at iteration 0.',
                  logger='current', level=logging.WARNING)
        return
    if last is None:
        reasons.append(f'{osp.join(cfg.work_dir, "last_checkpoint")} is missing or empty')
    for path in candidates:
        if osp.isdir(path):  # a checkpoint of FSDP, a file of each process
            checkpoint = None
        elif not osp.isfile(path):
            reasons.append(f'{path} is missing')
            continue
        else:
            try:
                checkpoint = _load(cfg, path, 'resume')
            except ValueError as error:
                if isinstance(error.__cause__, Refused):
                    raise
                reasons.append(str(error).removeprefix('`resume`: '))
                continue
        if reasons:
            print_log(f'`--resume`: goes on from {path}, the newest whole checkpoint, since '
                      f'{"; ".join(reasons)}', logger='current', level=logging.WARNING)
            cfg.load_from = path
        if checkpoint is not None:
            _check_complete(cfg, path, checkpoint)
        return
    raise ValueError(f'`--resume`: no checkpoint in {cfg.work_dir} can be read: {"; ".join(reasons)} To start anew, '
                     'take another --work-dir.')


def _load(cfg: Config, path: str, setting: str):
    return load_without_code(path, setting=setting, trusted=bool(cfg.get('trust_checkpoints', False)))


def _check_complete(cfg: Config, path: str, checkpoint) -> None:
    checkpoint = checkpoint if isinstance(checkpoint, dict) else {}
    meta = checkpoint.get('meta')
    missing = [] if isinstance(checkpoint.get('optimizer'), dict) else ['the state of the optimizer (`optimizer`)']
    if not isinstance(meta, dict) or not all(type(meta.get(key)) is int for key in ('iter', 'epoch')):
        missing.append('the iteration (`meta`)')
    if not missing:
        return
    if not cfg.get('resume_incomplete', False):
        raise ValueError(f'`--resume`: {path} holds no {" and no ".join(missing)}, so that the run cannot be '
                         'continued. To begin a new one with its weights, say --cfg-options resume_incomplete=True.')
    print_log(f'`resume_incomplete`: {path} holds no {" and no ".join(missing)}; its weights begin a new run at '
              'iteration 0.', logger='current', level=logging.WARNING)
    cfg.load_from, cfg.resume = path, False


def _last(work_dir: str) -> str | None:
    """What ``last_checkpoint`` names; in a folder that was moved the file of that name."""
    pointer = osp.join(work_dir, 'last_checkpoint')
    if not osp.isfile(pointer):
        return None
    with open(pointer, encoding='utf-8', errors='replace') as file:
        named = file.read().strip()
    here = osp.join(work_dir, osp.basename(named))
    return None if not named else here if not osp.exists(named) and osp.exists(here) else named


def _checkpoints(work_dir: str) -> list[str]:
    """The checkpoints in a work dir, newest first."""
    if not osp.isdir(work_dir):
        return []
    found = [(int(match[1]), name) for name in os.listdir(work_dir) if (match := _STEP.fullmatch(name))]
    return [osp.join(work_dir, name) for _, name in sorted(found, reverse=True)]


def changed_settings(recorded: str, cfg: Config) -> list[str] | None:
    """What a run learns from that is not as it was: ``'setting: old -> new'`` each.

    Args:
        recorded: Text of the config that a checkpoint carries.
        cfg: The config of the run that goes on from it.

    Returns:
        The changes; None: one of the two cannot be compared.
    """
    try:
        old, new = (parse_config_without_code(text, 'config') for text in (recorded, cfg.pretty_text))
    except ValueError:
        return None
    before, after = (dict(_flat({key: settings.get(key) for key in _OBJECTIVE})) for settings in (old, new))
    nothing = 'nothing'
    return [f'{key}: {before.get(key, nothing)!s:.100} -> {after.get(key, nothing)!s:.100}'
            for key in sorted({*before, *after}) if before.get(key, nothing) != after.get(key, nothing)]


def _flat(value, where: str = '') -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f'{where}.{key}' if where else str(key))
    elif isinstance(value, (list, tuple)) and any(isinstance(inner, dict) for inner in value):
        for index, inner in enumerate(value):
            yield from _flat(inner, f'{where}.{index}')
    else:
        yield where, repr(list(value) if isinstance(value, tuple) else value)
