"""Where a distillation term reads: logits, or the output of a named module."""
import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn

from mmseg_kd.functional import Upsampled

__all__ = ['AUXILIARY_HEAD', 'AUX_LOGITS', 'Arguments', 'BOX_LOGITS', 'LOGITS', 'MASK_LOGITS', 'ModuleCalls',
           'check_tap', 'is_auxiliary_head', 'is_module', 'module_calls', 'read_tap', 'tapped_modules']

LOGITS = 'logits'
AUX_LOGITS = 'aux_logits'
#: Of detectors: distributions over the distances to a box's edges; the mask of each positive proposal.
BOX_LOGITS = 'box_logits'
MASK_LOGITS = 'mask_logits'
#: Of segmentors: logits of the auxiliary head, or of one of several like ``'auxiliary_head[1]'``.
AUXILIARY_HEAD = 'auxiliary_head'
_NO_MODULES = (LOGITS, AUX_LOGITS, BOX_LOGITS, MASK_LOGITS)
_OVERWRITTEN = object()


def is_module(tap: str) -> bool:
    """Whether a tap is the output of a module, not logits."""
    return tap not in _NO_MODULES and not is_auxiliary_head(tap)


def is_auxiliary_head(tap: str) -> bool:
    """Whether a tap is the logits of a segmentor's auxiliary head."""
    return _split(tap)[0] == AUXILIARY_HEAD


def _split(tap: str) -> tuple[str, int | None]:
    """Module and number of its output: ``'backbone[2]'`` is the third map of a backbone that returns several."""
    found = re.fullmatch(r'(.+)\[(\d+)\]', tap)
    return (found[1], int(found[2])) if found else (tap, None)


def check_tap(model: nn.Module, tap: str, setting: str, whose: str, answers: Collection[str] = (LOGITS, )) -> None:
    """Refuse a tap that ``model`` does not have.

    Args:
        model: Student or teacher.
        tap: What a term reads.
        setting: Name of the term's setting, for the message.
        whose: ``'student'`` or ``'teacher'``.
        answers: Taps of this kind of model that are not modules.

    Raises:
        ValueError: ``tap`` is none of ``answers`` nor the name of a module; the message has the nearest names.
    """
    names = [name for name, _ in model.named_modules() if name]
    module = _split(tap)[0]
    if tap in answers or module in names:
        return
    if tap == AUX_LOGITS:
        raise ValueError(f"`{setting}`: the {whose} has no 'aux_logits': " + (
            "add dual_head=dict(kind='linear') to the model." if whose == 'student' else
            "only the student has a dual head; write on='aux_logits' or on=('aux_logits', 'logits')."))
    near = difflib.get_close_matches(module, names, n=3, cutoff=0.5) or [name for name in names if '.' not in name]
    raise ValueError(f"`{setting}`: the {whose} has nothing to read at {tap!r}; expected "
                     f"{', '.join(map(repr, answers))} or the name of one of its modules, for instance {near}. "
                     'model.named_modules() lists them all.')


def tapped_modules(model: nn.Module, taps: Collection[str]) -> dict[str, nn.Module]:
    """The modules that taps read, by name; ``'logits'`` and its like are passed over, they are not modules."""
    names = sorted({_split(tap)[0] for tap in taps if is_module(tap)})
    return {name: model.get_submodule(name) for name in names}


class Arguments(NamedTuple):
    """What a module was called with."""

    positional: tuple
    named: dict[str, object]

    @property
    def first(self) -> Tensor:
        """The first positional argument: the input of a layer."""
        return self.positional[0]


class ModuleCalls(NamedTuple):
    """What was seen of modules while a block ran."""

    outputs: dict[str, object]  #: by name, the latest output; read it with :func:`read_tap`
    arguments: list[list[Arguments]]  #: for each module in order, its calls


@contextmanager
def module_calls(outputs_of: Mapping[str, nn.Module], arguments_of: Sequence[nn.Module] = ()) -> Iterator[ModuleCalls]:
    """Collect outputs and arguments of modules while the block runs.

    The hooks live as long as the block and leave nothing on the model: inference, copies and exports know nothing of
    them.

    Args:
        outputs_of: The modules whose outputs are wanted, by the name under which they are kept.
        arguments_of: The modules whose arguments are wanted, as their caller passed them.

    Yields:
        It is filled as the block runs.
    """
    calls = ModuleCalls({}, [])
    versions: dict[str, list[int]] = {}

    def keep_output(name):
        def hook(module, args, output):
            calls.outputs[name] = output
            versions[name] = _versions(output)
        return hook

    def keep_arguments(found):
        return lambda module, args, kwargs: found.append(Arguments(args, kwargs))

    handles = []
    for name, module in outputs_of.items():
        handles.append(module.register_forward_hook(keep_output(name)))
    for module in arguments_of:
        found: list[Arguments] = []
        calls.arguments.append(found)
        # First in line, whatever other hooks make of the arguments.
        handles.append(module.register_forward_pre_hook(keep_arguments(found), prepend=True, with_kwargs=True))
    try:
        yield calls
        for name, before in versions.items():
            output = calls.outputs[name]
            changed = [now != then for now, then in zip(_versions(output), before, strict=True)]
            if isinstance(output, Tensor) and changed[0]:
                calls.outputs[name] = _OVERWRITTEN
            elif any(changed):
                # Only what was overwritten is lost, the other outputs can still be read.
                calls.outputs[name] = [_OVERWRITTEN if lost else each
                                       for each, lost in zip(output, changed, strict=True)]
    finally:
        for handle in handles:
            handle.remove()


def _versions(output: object) -> list[int]:
    """torch's counter of changes in place, of each tensor of a module's output."""
    parts = output if isinstance(output, (tuple, list)) else [output]
    return [part._version if isinstance(part, Tensor) and not part.is_inference() else 0 for part in parts]


def read_tap(outputs: dict[str, object], tap: str, setting: str, whose: str) -> Tensor | Upsampled:
    """Take one tap's tensor (or logits yet to be upsampled) out of the collected outputs.

    Raises:
        ValueError: the module did not run in this step, or its output is not a tensor.
    """
    output = outputs.get(tap)
    if isinstance(output, (Tensor, Upsampled)):
        return output
    module, index = _split(tap)
    if module not in outputs:
        raise ValueError(f"`{setting}`: module {module!r} of the {whose} exists but was not called in a training step "
                         "(mmseg calls heads through their methods, so a head itself cannot be tapped). Use 'logits' "
                         'or a module inside it.')
    output = outputs[module]
    if index is not None:
        if isinstance(output, Tensor) or not isinstance(output, (tuple, list)) or index >= len(output):
            raise ValueError(f'`{setting}`: {tap!r} of the {whose} is not there: {module!r} returns {_what(output)}.')
        output = output[index]
    if output is _OVERWRITTEN:
        raise ValueError(f'`{setting}`: the output of {tap!r} of the {whose} is overwritten in place by what '
                         'follows it, a ReLU(inplace=True) most likely. Name the module that does so, or the next one.')
    if not isinstance(output, (Tensor, Upsampled)):
        way_out = f"Take one of them, like '{module}[0]'" if isinstance(output, (tuple, list)) else (
            'Name a module inside it')
        raise ValueError(f'`{setting}`: {tap!r} of the {whose} returns {_what(output)}, expected a tensor. {way_out}.')
    return output


def _what(output: object) -> str:
    number = f' of {len(output)}' if isinstance(output, (tuple, list)) else ''
    return f'a {type(output).__name__}{number}'
