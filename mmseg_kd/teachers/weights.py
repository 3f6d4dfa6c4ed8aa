"""Reading the weights of trained models, and filling models with them."""
import logging

import torch
from mmengine.logging import print_log
from torch import nn

from mmseg_kd.safe_load import download, load_without_code, verify_sha256

from .class_names import metainfo_in_checkpoint, names_in_checkpoint

__all__ = ['Weights', 'load_into', 'read_weights']


class Weights(dict):
    """A state dict, parameter name to tensor.

    Args:
        classes: Names of the classes that the checkpoint says it knows; None: it does not say.
        metainfo: ``classes`` and ``palette`` as far as the checkpoint says.
    """

    def __init__(self, state: dict[str, torch.Tensor], classes: tuple[str, ...] | None, metainfo: dict):
        super().__init__(state)
        self.classes = classes
        self.metainfo = metainfo


def read_weights(path: str, setting: str = 'teacher.checkpoint', sha256: str | None = None,
                 trusted: bool = False) -> Weights:
    """Read the state dict out of a checkpoint file or URL, on the CPU, with ``weights_only=True``.

    Takes what mmengine's Runner writes, what older OpenMMLab wrote (``state_dict``) and a bare state dict; a leading
    ``module.`` of every key is removed.

    Args:
        path: A local file, or an ``http(s)://`` URL (downloaded once into torch hub's cache; checked if its name ends
            with a hash, as OpenMMLab's do).
        setting: Name of the setting that ``path`` came from, for the error messages.
        sha256: The file's SHA-256, or at least 8 digits of its beginning.
        trusted: Unpickle everything, which can run code that the file contains.

    Returns:
        The state dict: parameter name to tensor.

    Raises:
        ValueError: the file does not exist, is no checkpoint, is not the one that was meant, or holds objects other
            than weights.
    """
    if path.startswith(('http://', 'https://')):
        path = download(path, sha256, setting)
    elif sha256 is not None:
        verify_sha256(path, sha256, setting)
    checkpoint = load_without_code(path, 'cpu', setting, trusted)
    classes, metainfo = names_in_checkpoint(checkpoint), metainfo_in_checkpoint(checkpoint)
    for key in ('state_dict', 'model'):
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
            break
    if not isinstance(checkpoint, dict) or not any(isinstance(value, torch.Tensor) for value in checkpoint.values()):
        raise ValueError(f'`{setting}`: {path!r} holds no state dict (a dict of tensors, or one under "state_dict").')
    if all(key.startswith('module.') for key in checkpoint):
        checkpoint = {key[len('module.'):]: value for key, value in checkpoint.items()}
    return Weights({key: value for key, value in checkpoint.items() if isinstance(value, torch.Tensor)}, classes,
                   metainfo)


def load_into(model: nn.Module, weights: dict[str, torch.Tensor], setting: str, path: str, config_setting: str,
              complete: bool = False) -> None:
    """Load weights that must fill a model.

    Args:
        model: What they are for.
        weights: Parameter name to tensor.
        setting: Name of the setting that ``path`` came from, for the error messages.
        path: Where the weights are from.
        config_setting: Name of the setting that the model's config came from.
        complete: Whether weights that have no place in the model are an error, too; else a warning.

    Raises:
        ValueError: a key of the model is missing or has another shape; the message has the counts.
    """
    wanted = model.state_dict()
    # BatchNorm's counter came late to torch; checkpoints without it are complete.
    missing = [key for key in wanted if key not in weights and not key.endswith('num_batches_tracked')]
    unexpected = [key for key in weights if key not in wanted]
    shapes = [f'{key}: checkpoint {tuple(weights[key].shape)}, model {tuple(wanted[key].shape)}'
              for key in wanted if key in weights and weights[key].shape != wanted[key].shape]
    if missing or shapes or (complete and unexpected):
        raise ValueError(
            f'`{setting}`: {path!r} does not fit `{config_setting}`: {len(missing)} of {len(wanted)} keys '
            f'are missing ({_some(missing)}), {len(shapes)} have another shape ({_some(shapes)}), {len(unexpected)} '
            f'are unexpected ({_some(unexpected)}). Give the config that the checkpoint was trained with.')
    if unexpected:
        print_log(f'`{setting}`: {len(unexpected)} keys have no place in the model and are left out '
                  f'({_some(unexpected)}).', logger='current', level=logging.WARNING)
    model.load_state_dict(weights, strict=False)


def _some(names: list[str]) -> str:
    return ', '.join(names[:3]) + (', ...' if len(names) > 3 else '') if names else 'none'
