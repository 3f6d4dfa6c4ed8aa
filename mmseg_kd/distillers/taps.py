"""Where a distillation term reads: logits, or the output of a named module."""
import difflib
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

__all__ = ['LOGITS', 'check_tap', 'module_outputs', 'read_tap']

LOGITS = 'logits'


def check_tap(model: nn.Module, tap: str, setting: str, whose: str) -> None:
    """Refuse a tap that ``model`` does not have.

    Raises:
        ValueError: ``tap`` is neither ``'logits'`` nor the name of a module.
    """
    names = [name for name, _ in model.named_modules() if name]
    if tap == LOGITS or tap in names:
        return
    near = difflib.get_close_matches(tap, names, n=3, cutoff=0.5) or [name for name in names if '.' not in name]
    raise ValueError(f"`{setting}`: the {whose} has nothing to read at {tap!r}; expected 'logits' or the name of one of its "
                     f'modules, for instance {near}. model.named_modules() lists them all.')


@contextmanager
def module_outputs(model: nn.Module, names: Collection[str]) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of named modules while the block runs.

    Args:
        model: The model that owns the modules.
        names: Names of modules; ``'logits'`` is passed over, it is no module.

    Yields:
        A dict from name to the module's latest output, filled as the block runs.
    """
    outputs: dict[str, Tensor] = {}

    def keep(name):
        def hook(module, args, output):
            outputs[name] = output
        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names if name != LOGITS]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def read_tap(outputs: dict[str, Tensor], tap: str, setting: str, whose: str) -> Tensor:
    """Take one tap's tensor out of the collected outputs.

    Raises:
        ValueError: the module did not run in this step, or its output is no tensor.
    """
    if tap not in outputs:
        raise ValueError(f"`{setting}`: module {tap!r} of the {whose} exists but was not called in a training step (mmseg "
                         "calls heads through their methods, so a head itself cannot be tapped). Use 'logits' or a module "
                         'inside it.')
    if not isinstance(outputs[tap], Tensor):
        raise ValueError(f'`{setting}`: module {tap!r} of the {whose} returns a {type(outputs[tap]).__name__}, expected a '
                         'tensor. Name a module inside it.')
    return outputs[tap]
