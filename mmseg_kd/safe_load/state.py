"""The state dict in a checkpoint, and whether it fits a model."""
from typing import NamedTuple

from torch import Tensor

__all__ = ['Fit', 'compare', 'some', 'state_dict_of']


def state_dict_of(checkpoint: object, setting: str, path: str, keys: tuple[str, ...] = ('state_dict', )
                  ) -> dict[str, Tensor]:
    """The tensors by name in what a checkpoint file holds, without a leading ``module.``.

    Args:
        checkpoint: What was read from the file.
        setting: Name of the setting that ``path`` came from, for the error messages.
        path: The file.
        keys: Where a state dict may lie; if it has none of them, the checkpoint itself is taken for one.

    Raises:
        ValueError: there is none, or its keys are not names.
    """
    state = checkpoint
    if isinstance(checkpoint, dict):
        key = next((key for key in keys if isinstance(checkpoint.get(key), dict)), None)
        if key is None and 'state_dict' in checkpoint and not isinstance(checkpoint['state_dict'], Tensor):
            raise ValueError(f'`{setting}`: the `state_dict` of {path!r} is a '
                             f'{type(checkpoint["state_dict"]).__name__}, expected a dict of tensors.')
        state = checkpoint if key is None else checkpoint[key]
        where = 'it' if key is None else f'its `{key}`'
        if isinstance(state, dict) and any(isinstance(value, Tensor) for value in state.values()):
            wrong = [name for name in state if not isinstance(name, str)]
            if wrong:
                raise ValueError(f'`{setting}`: {where} in {path!r} has keys that are not names, such as '
                                 f'{wrong[0]!r:.60}; expected names of parameters.')
            tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
            prefixed = all(name.startswith('module.') for name in tensors)
            return {name.removeprefix('module.') if prefixed else name: value for name, value in tensors.items()}
    raise ValueError(f'`{setting}`: {path!r} holds no state dict (a dict of tensors, or one under "state_dict"), but '
                     f'{_content(checkpoint)}.')


def _content(checkpoint: object) -> str:
    if not isinstance(checkpoint, dict):
        return f'a {type(checkpoint).__name__}'
    names = ', '.join(f'{key!r:.40}' for key in list(checkpoint)[:5]) or 'nothing'
    return f'a dict with {names}{", ..." if len(checkpoint) > 5 else ""}'


class Fit(NamedTuple):
    """How a state dict fits a model; the lists hold words for the reader.

    Attributes:
        wanted: Number of the model's keys.
        missing: Keys of the model that the state dict lacks.
        unexpected: Keys that the model lacks.
        sizes: Keys with two sizes, and both.
        kinds: Keys whose numbers are of another kind (integer, bool, complex), and both dtypes.
    """

    wanted: int
    missing: list[str]
    unexpected: list[str]
    sizes: list[str]
    kinds: list[str]

    def __str__(self) -> str:
        kinds = f', {len(self.kinds)} have numbers of another kind ({some(self.kinds)})' if self.kinds else ''
        return (f'of {self.wanted} keys of the model {len(self.missing)} are missing ({some(self.missing)}) and '
                f'{len(self.sizes)} have another size ({some(self.sizes)}){kinds}; {len(self.unexpected)} are '
                f'unexpected ({some(self.unexpected)})')


def compare(wanted: dict[str, Tensor], given: dict[str, Tensor]) -> Fit:
    """Compare a state dict with a model's own."""
    both = [(key, given[key], value) for key, value in wanted.items() if key in given]
    return Fit(
        len(wanted), [key for key in wanted if key not in given], [key for key in given if key not in wanted],
        [f'{key}: checkpoint {tuple(one.shape)}, model {tuple(other.shape)}' for key, one, other in both
         if one.shape != other.shape],
        [f'{key}: checkpoint {one.dtype}, model {other.dtype}' for key, one, other in both
         if _kind(one) != _kind(other)])


def _kind(tensor: Tensor) -> str:
    return 'complex' if tensor.is_complex() else 'real' if tensor.is_floating_point() else 'whole'


def some(names: list[str]) -> str:
    """The first of many names, for a message."""
    return ', '.join(names[:3]) + (', ...' if len(names) > 3 else '') if names else 'none'
