"""Where a distillation term reads: logits, or the output of a named module."""
import difflib
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from mmseg_kd.functional import Upsampled

__all__ = ['AUX_LOGITS', 'BOX_LOGITS', 'LOGITS', 'MASK_LOGITS', 'check_tap', 'classifier_inputs', 'is_module',
           'module_outputs', 'read_tap']

LOGITS = 'logits'
AUX_LOGITS = 'aux_logits'
#: Of detectors: distributions over the distances to a box's edges; the mask of each positive proposal.
BOX_LOGITS = 'box_logits'
MASK_LOGITS = 'mask_logits'
_OVERWRITTEN = object()


def is_module(tap: str) -> bool:
    """Whether a tap is the output of a module, not logits."""
    return tap not in (LOGITS, AUX_LOGITS, BOX_LOGITS, MASK_LOGITS)


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
        answers: Taps of this kind of model that are no modules.

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


@contextmanager
def module_outputs(model: nn.Module, taps: Collection[str]) -> Iterator[dict[str, object]]:
    """Collect the outputs of named modules while the block runs.

    Args:
        model: The model that owns the modules.
        taps: What terms read; ``'logits'`` and ``'aux_logits'`` are passed over, they are no modules.

    Yields:
        A dict from the module's name to its latest output, filled as the block runs; see :func:`read_tap`.
    """
    outputs: dict[str, object] = {}
    versions: dict[str, int] = {}

    def keep(name):
        def hook(module, args, output):
            outputs[name] = output
            versions[name] = output._version if isinstance(output, Tensor) else 0
        return hook

    names = {_split(tap)[0] for tap in taps if is_module(tap)}
    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in sorted(names)]
    try:
        yield outputs
        for name, version in versions.items():
            if isinstance(outputs[name], Tensor) and outputs[name]._version != version:
                outputs[name] = _OVERWRITTEN
    finally:
        for handle in handles:
            handle.remove()


def read_tap(outputs: dict[str, object], tap: str, setting: str, whose: str) -> Tensor | Upsampled:
    """Take one tap's tensor (or logits yet to be upsampled) out of the collected outputs.

    Raises:
        ValueError: the module did not run in this step, or its output is no tensor.
    """
    module, index = _split(tap)
    if module not in outputs:
        raise ValueError(f"`{setting}`: module {module!r} of the {whose} exists but was not called in a training step "
                         "(mmseg calls heads through their methods, so a head itself cannot be tapped). Use 'logits' "
                         'or a module inside it.')
    output = outputs[module]
    if output is _OVERWRITTEN:
        raise ValueError(f'`{setting}`: the output of {module!r} of the {whose} is overwritten in place by what '
                         'follows it, a ReLU(inplace=True) most likely. Name the module that does so, or the next one.')
    if index is not None:
        if isinstance(output, Tensor) or not isinstance(output, (tuple, list)) or index >= len(output):
            raise ValueError(f'`{setting}`: {tap!r} of the {whose} is not there: {module!r} returns {_what(output)}.')
        output = output[index]
    if not isinstance(output, (Tensor, Upsampled)):
        way_out = f"Take one of them, like '{module}[0]'" if isinstance(output, (tuple, list)) else (
            'Name a module inside it')
        raise ValueError(f'`{setting}`: {tap!r} of the {whose} returns {_what(output)}, expected a tensor. {way_out}.')
    return output


def _what(output: object) -> str:
    number = f' of {len(output)}' if isinstance(output, (tuple, list)) else ''
    return f'a {type(output).__name__}{number}'


@contextmanager
def classifier_inputs(classifier: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the inputs of a module while the block runs.

    A hook that lives for one step leaves nothing on the model: inference, copies and exports know nothing of it.

    Args:
        classifier: The main classifier, for instance mmseg's ``conv_seg``; its input is taken after the head's dropout.

    Yields:
        A list that grows by one tensor per call of the module.
    """
    inputs: list[Tensor] = []
    # First in line, so that what is collected is what the head passed, whatever other hooks make of it.
    handle = classifier.register_forward_pre_hook(lambda module, args: inputs.append(args[0]), prepend=True)
    try:
        yield inputs
    finally:
        handle.remove()
