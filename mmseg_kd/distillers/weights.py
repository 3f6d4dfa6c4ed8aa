"""Reading a teacher's weights."""
import torch

from mmseg_kd.safe_load import download, load_without_code, verify_sha256

from .class_names import names_in_checkpoint

__all__ = ['Weights', 'read_weights']


class Weights(dict):
    """A state dict, parameter name to tensor.

    Args:
        classes: Names of the classes that the checkpoint says it knows; None: it does not say.
    """

    def __init__(self, state: dict[str, torch.Tensor], classes: tuple[str, ...] | None):
        super().__init__(state)
        self.classes = classes


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
    classes = names_in_checkpoint(checkpoint)
    for key in ('state_dict', 'model'):
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
            break
    if not isinstance(checkpoint, dict) or not any(isinstance(value, torch.Tensor) for value in checkpoint.values()):
        raise ValueError(f'`{setting}`: {path!r} holds no state dict (a dict of tensors, or one under "state_dict").')
    if all(key.startswith('module.') for key in checkpoint):
        checkpoint = {key[len('module.'):]: value for key, value in checkpoint.items()}
    return Weights({key: value for key, value in checkpoint.items() if isinstance(value, torch.Tensor)}, classes)
