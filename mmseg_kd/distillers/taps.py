"""Where a distillation term reads: logits, or the output of a named module."""
import difflib
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from mmseg_kd.functional import Upsampled

__all__ = ['AUX_LOGITS', 'LOGITS', 'check_tap', 'module_outputs', 'read_tap']

LOGITS = 'logits'
AUX_LOGITS = 'aux_logits'


def check_tap(model: nn.Module, tap: str, setting: str, whose: str) -> None:
    """Refuse a tap that ``model`` does not have.

    Args:
        model: Student or teacher.
        tap: What a term reads.
        setting: Name of the term's setting, for the message.
        whose: ``'student'`` or ``'teacher'``.

    Raises:
        ValueError: ``tap`` is neither ``'logits'`` nor the name of a module.
    """
    names = [name for name, _ in model.named_modules() if name]
    if tap == LOGITS or tap in names:
        return
    if tap == AUX_LOGITS:
        raise ValueError(f"`{setting}`: the {whose} has no 'aux_logits': " + (
            "add dual_head=dict(kind='linear') to the model." if whose == 'student' else
            "only the student has a dual head; write on='aux_logits' or on=('aux_logits', 'logits')."))
    near = difflib.get_close_matches(tap, names, n=3, cutoff=0.5) or [name for name in names if '.' not in name]
    raise ValueError(f"`{setting}`: the {whose} has nothing to read at {tap!r}; expected 'logits' or the name of one "
                     f'of its modules, for instance {near}. model.named_modules() lists them all.')


@contextmanager
def module_outputs(model: nn.Module, names: Collection[str]) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of named modules while the block runs.

    Args:
        model: The model that owns the modules.
        names: Names of modules; ``'logits'`` and ``'aux_logits'`` are passed over, they are no modules.

    Yields:
        A dict from name to the module's latest output, filled as the block runs.
    """
    outputs: dict[str, Tensor] = {}

    def keep(name):
        def hook(module, args, output):
            outputs[name] = output
        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names
               if name not in (LOGITS, AUX_LOGITS)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def read_tap(outputs: dict[str, Tensor | Upsampled], tap: str, setting: str, whose: str) -> Tensor | Upsampled:
    """Take one tap's tensor (or logits yet to be upsampled) out of the collected outputs.

    Raises:
        ValueError: the module did not run in this step, or its output is no tensor.
    """
    if tap not in outputs:
        raise ValueError(f"`{setting}`: module {tap!r} of the {whose} exists but was not called in a training step "
                         "(mmseg calls heads through their methods, so a head itself cannot be tapped). Use 'logits' "
                         'or a module inside it.')
    if not isinstance(outputs[tap], (Tensor, Upsampled)):
        raise ValueError(f'`{setting}`: module {tap!r} of the {whose} returns a {type(outputs[tap]).__name__}, '
                         'expected a tensor. Name a module inside it.')
    return outputs[tap]
