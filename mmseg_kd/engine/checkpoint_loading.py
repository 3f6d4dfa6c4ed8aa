"""How a run reads checkpoints: without running code, and never one that does not fit."""
import logging

from mmengine.config import Config
from mmengine.fileio import get_local_path
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader, EpochBasedTrainLoop
from mmengine.runner.checkpoint import (
    get_deprecated_model_names,
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
)
from torch.distributed.fsdp import FullyShardedDataParallel

from mmseg_kd.registry import HOOKS
from mmseg_kd.safe_load import compare, download, load_without_code, state_dict_of

from .resume import changed_settings
from .unwrapped import unwrapped

__all__ = ['CheckpointFitHook', 'load_checkpoints_without_code']


def load_checkpoints_without_code(cfg: Config) -> None:
    """Let mmengine load every checkpoint by :func:`~mmseg_kd.safe_load.load_without_code`, wherever it lies.

    That concerns ``load_from``, ``--resume``, and pretrained weights that ``init_cfg`` names. mmengine's own loaders
    fall back to full unpickling where the safe way fails, and run the config that a checkpoint carries when a run is
    resumed; ``trust_checkpoints = True`` in the config leaves them in place, and the log says so.
    """
    if cfg.get('trust_checkpoints', False):
        print_log('`trust_checkpoints`: checkpoints are unpickled as a whole, which runs whatever code they contain.',
                  logger='current', level=logging.WARNING)
        return
    loaders = {'': _from_file, 'http://': _from_url, 'https://': _from_url, 'torchvision://': _from_torchvision,
               'modelzoo://': _from_torchvision, 'open-mmlab://': _from_openmmlab, 'openmmlab://': _from_openmmlab,
               'mmcls://': _from_mmcls}
    # What is left are storages of other machines (s3, petrel, ...).
    for prefix in {*CheckpointLoader._schemes, *loaders}:
        loader = loaders.get(prefix, _from_storage)
        CheckpointLoader.register_scheme(prefix, loader, force=True)


def _from_file(filename, map_location=None):
    checkpoint = load_without_code(filename, map_location, 'load_from')
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if isinstance(meta, dict) and 'config' in meta:
        # mmengine runs it as Python when it resumes, to look up `gpu_ids`. Its own checkpoints have `cfg` instead.
        del meta['config']
    return checkpoint


def _from_url(filename, map_location=None, **kwargs):
    return _from_file(download(filename, setting='load_from'), map_location)


def _from_torchvision(filename, map_location=None):
    return _from_named(filename, get_torchvision_models(), map_location)


def _from_openmmlab(filename, map_location=None):
    names = get_external_models()
    renamed = get_deprecated_model_names()
    name = filename.split('://', 1)[1]
    return _from_named(f'open-mmlab://{renamed.get(name, name)}', names, map_location)


def _from_mmcls(filename, map_location=None):
    checkpoint = _from_named(filename, get_mmcls_models(), map_location)
    state = state_dict_of(checkpoint, 'load_from', filename)
    return dict(state_dict={key.removeprefix('backbone.'): value for key, value in state.items()
                            if key.startswith('backbone.')})


def _from_named(filename: str, addresses: dict[str, str], map_location):
    name = filename.split('://', 1)[1]
    if name not in addresses:
        raise ValueError(f'`load_from`: {filename!r} is not known; expected one of {sorted(addresses)}.')
    address = addresses[name]
    return (_from_url if '://' in address else _from_file)(address, map_location)


def _from_storage(filename, map_location=None, **kwargs):
    with get_local_path(filename) as path:
        return _from_file(path, map_location)


def _say_what_changed(runner, checkpoint: dict) -> None:
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if not isinstance(meta, dict):
        return
    recorded = meta.get('cfg')
    changes = changed_settings(recorded, runner.cfg) if isinstance(recorded, str) else None
    if changes is None:
        runner.logger.info('`--resume`: the config that the checkpoint was written with cannot be compared with this '
                           'one.')
    elif changes:
        runner.logger.warning('`--resume`: the run goes on with other settings than it began with (old -> new):\n  '
                              + '\n  '.join(changes))
    loop = runner.train_loop
    done, wanted, what = ((meta.get('epoch'), loop.max_epochs, 'epochs') if isinstance(loop, EpochBasedTrainLoop) else
                          (meta.get('iter'), loop.max_iters, 'iters'))
    if isinstance(done, int) and done >= wanted:
        runner.logger.warning(f'`--resume`: nothing is left to do: the checkpoint has {done} {what}, '
                              f'train_cfg.max_{what} is {wanted}. To train on, raise it.')


@HOOKS.register_module()
class CheckpointFitHook(Hook):
    """Compare the keys and sizes of a loaded checkpoint with the model's, and on resume its config with the run's.

    mmengine loads what fits and goes on. A resumed run must fit in every key; for initial weights (``load_from``) and
    for evaluation it is an error when nothing fits, and a warning with the counts when something does not.

    Raises:
        ValueError: the checkpoint is another model's.
    """

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare before the weights are copied."""
        if runner._resume:
            _say_what_changed(runner, checkpoint)
        if isinstance(runner.model, FullyShardedDataParallel):
            return  # its checkpoints hold shards, which it compares itself
        model = unwrapped(runner.model)
        # A model for test-time augmentation, which is not a wrapper, has the prefix in its own keys.
        wanted = {key.removeprefix('module.'): value for key, value in model.state_dict().items()}
        setting = 'resume' if runner._resume else 'load_from'
        given = state_dict_of(checkpoint, setting, 'the checkpoint')
        fit = compare(wanted, {key.removeprefix('module.'): value for key, value in given.items()})
        if not (fit.missing or fit.unexpected or fit.sizes or fit.kinds):
            return
        if runner._resume or fit.kinds or len(fit.missing) + len(fit.sizes) == fit.wanted:
            raise ValueError(f'`{setting}`: the checkpoint is not of this model: {fit}. Give the checkpoint that '
                             'belongs to the config.')
        print_log(f'`load_from`: the checkpoint fits in part: {fit}.', logger='current', level=logging.WARNING)
