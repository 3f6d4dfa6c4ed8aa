"""Reading the weights of trained models, and filling models with them."""
import logging

import torch
from mmengine.logging import print_log
from torch import nn

from mmseg_kd.safe_load import compare, download, load_without_code, some, state_dict_of, verify_sha256

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
    """Read the state dict out of a checkpoint file or URL, on the CPU, without running code of the file.

    Takes what mmengine's Runner writes, what older OpenMMLab wrote (``state_dict``), a bare state dict, and
    ``.safetensors`` files; a leading ``module.`` of every key is removed.

    Args:
        path: A local file, or an ``http(s)://`` URL (downloaded once into torch hub's cache; checked if its name ends
            with a hash, as OpenMMLab's do).
        setting: Name of the setting that ``path`` came from, for the error messages.
        sha256: The file's SHA-256, or at least 8 digits of its beginning.
        trusted: Unpickle everything, which can run code that the file contains.

    Returns:
        The state dict: parameter name to tensor.

    Raises:
        ValueError: the file does not exist, is not a checkpoint, is not the one that was meant, or holds objects other
            than weights.
    """
    if path.startswith(('http://', 'https://')):
        path = download(path, sha256, setting)
    elif sha256 is not None:
        verify_sha256(path, sha256, setting)
    checkpoint = load_without_code(path, 'cpu', setting, trusted)
    classes, metainfo = names_in_checkpoint(checkpoint), metainfo_in_checkpoint(checkpoint)
    return Weights(state_dict_of(checkpoint, setting, path, ('state_dict', 'model')), classes, metainfo)


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
        ValueError: a key of the model is missing, or has another shape or another kind of numbers; the message has the
            counts.
    """
    fit = compare(model.state_dict(), weights)
    # BatchNorm's counter came late to torch; checkpoints without it are complete.
    missing = [key for key in fit.missing if not key.endswith('num_batches_tracked')]
    if missing or fit.sizes or fit.kinds or (complete and fit.unexpected):
        kinds = f'{len(fit.kinds)} have numbers of another kind ({some(fit.kinds)}), ' if fit.kinds else ''
        raise ValueError(
            f'`{setting}`: {path!r} does not fit `{config_setting}`: {len(missing)} of {fit.wanted} keys '
            f'are missing ({some(missing)}), {len(fit.sizes)} have another shape ({some(fit.sizes)}), {kinds}'
            f'{len(fit.unexpected)} are unexpected ({some(fit.unexpected)}). Give the config that the checkpoint was '
            'trained with.')
    if fit.unexpected:
        print_log(f'`{setting}`: {len(fit.unexpected)} keys have no place in the model and are left out '
                  f'({some(fit.unexpected)}).', logger='current', level=logging.WARNING)
    model.load_state_dict(weights, strict=False)
