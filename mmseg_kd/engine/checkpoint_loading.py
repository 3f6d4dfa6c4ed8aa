"""How a run reads checkpoints: without running code, and never one that does not fit."""
import logging

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import CheckpointLoader
from torch.distributed.fsdp import FullyShardedDataParallel

from mmseg_kd.registry import HOOKS
from mmseg_kd.safe_load import download, load_without_code

__all__ = ['CheckpointFitHook', 'load_checkpoints_without_code']


def load_checkpoints_without_code(cfg: Config) -> None:
    """Let mmengine load local files and URLs by :func:`~mmseg_kd.safe_load.load_without_code`.

    That concerns ``load_from``, ``--resume``, and pretrained weights that ``init_cfg`` names by path or URL. mmengine's
    own loaders fall back to full unpickling where the safe way fails; ``trust_checkpoints = True`` in the config leaves
    them in place, and the log says so.
    """
    if cfg.get('trust_checkpoints', False):
        print_log('`trust_checkpoints`: checkpoints are unpickled as a whole, which runs whatever code they contain.',
                  logger='current', level=logging.WARNING)
        return
    CheckpointLoader.register_scheme('', _from_file, force=True)
    CheckpointLoader.register_scheme(('http://', 'https://'), _from_url, force=True)


def _from_file(filename, map_location=None):
    return load_without_code(filename, map_location, 'load_from')


def _from_url(filename, map_location=None, **kwargs):
    return load_without_code(download(filename, setting='load_from'), map_location, 'load_from')


@HOOKS.register_module()
class CheckpointFitHook(Hook):
    """Compare the keys and sizes of a loaded checkpoint with the model's.

    mmengine loads what fits and goes on. A resumed run must fit in every key; for initial weights (``load_from``) and
    for evaluation it is an error when nothing fits, and a warning with the counts when something does not.

    Raises:
        ValueError: the checkpoint is another model's.
    """

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare before the weights are copied."""
        if isinstance(runner.model, FullyShardedDataParallel):
            return  # its checkpoints hold shards, which it compares itself
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        # A model for test-time augmentation, which is no wrapper, has the prefix in its own keys.
        wanted = {key.removeprefix('module.'): value for key, value in model.state_dict().items()}
        given = checkpoint.get('state_dict', checkpoint)
        given = {key.removeprefix('module.'): value for key, value in given.items()}
        missing = [key for key in wanted if key not in given]
        unexpected = [key for key in given if key not in wanted]
        sizes = [f'{key}: checkpoint {tuple(given[key].shape)}, model {tuple(value.shape)}'
                 for key, value in wanted.items() if key in given and given[key].shape != value.shape]
        if not missing and not unexpected and not sizes:
            return
        found = (f'of {len(wanted)} keys of the model {len(missing)} are missing ({_some(missing)}) and {len(sizes)} '
                 f'have another size ({_some(sizes)}); {len(unexpected)} are unexpected ({_some(unexpected)})')
        if runner._resume or len(missing) + len(sizes) == len(wanted):
            raise ValueError(f'`{"resume" if runner._resume else "load_from"}`: the checkpoint is not of this model: '
                             f'{found}. Give the checkpoint that belongs to the config.')
        print_log(f'`load_from`: the checkpoint fits in part: {found}.', logger='current', level=logging.WARNING)


def _some(names: list[str]) -> str:
    return ', '.join(names[:3]) + (', ...' if len(names) > 3 else '') if names else 'none'
