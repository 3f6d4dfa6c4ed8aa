"""What the losses refuse, and how they say it: argument, expectation, what was got, the way out.

Settings (temperatures, weights, names) are checked where a loss is built and again where it is called; tensors where
it is called. All of it costs no device synchronisation: shapes, types and devices are known to the host, and the range
of the labels is checked on the device (:func:`check_labels`).
"""
import functools
import inspect
import numbers
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .upsampled import Logits, Upsampled

__all__ = ['Inputs', 'check_labels', 'check_settings', 'checked', 'loss_function', 'settings_of', 'valid_positions',
           'warn_once']

_LARGEST = sys.float_info.max
_ABOVE_0 = sys.float_info.min


class _Domain(NamedTuple):
    """What a setting may be: one of the choices, or a number within bounds."""

    expected: str
    kind: type | None = None
    low: float = -_LARGEST
    high: float = _LARGEST
    choices: tuple = ()


def _one_of(*choices: str | None) -> _Domain:
    return _Domain(f'one of {", ".join(map(repr, choices))}', choices=choices)


_NUMBER = _Domain('a finite number', numbers.Real)
_POSITIVE_OR_NONE = _Domain('a positive finite number, or None', numbers.Real, _ABOVE_0, choices=(None, ))
_FLAG = _Domain('True or False', bool)
_COUNT = _Domain('an integer of at least 1', numbers.Integral, 1)

# A setting means the same in every loss of the family, so its name says what it may be.
_SETTINGS = dict(
    # Softened by more, the differences of the logits drown in float32's rounding; by less, their quotients overflow.
    temperature=_Domain('a positive number from 0.001 to 1000', numbers.Real, 1e-3, 1e3),
    loss_weight=_NUMBER,
    ignore_index=_Domain('an integer, or None to ignore nothing', numbers.Integral, choices=(None, )),
    reduction=_one_of('mean', 'sum', 'none'),
    alpha=_NUMBER,
    beta=_NUMBER,
    gamma=_NUMBER,
    epsilon=_NUMBER,
    cap=_POSITIVE_OR_NONE,
    coupling=_one_of('relative', 'absolute'),
    softening=_Domain('a finite number of at least 0', numbers.Real, 0.),
    w0=_NUMBER,
    w1=_NUMBER,
    w2=_NUMBER,
    k=_COUNT,
    k_max=_COUNT._replace(expected='an integer of at least 1, or None', choices=(None, )),
    ratio=_POSITIVE_OR_NONE,
    one_out=_FLAG,
    keep=_Domain('a number above 0 and at most 1', numbers.Real, _ABOVE_0, 1.),
    strategy=_one_of('best', 'worst'),
    by_mass=_one_of(None, 'top', 'rest', 'both'),
    divergence=_one_of('forward', 'reverse', 'both'),
    standardize=_one_of(None, 'whole', 'group', 'rest'),
)


def check_settings(owner: str, known: tuple[str, ...], settings: dict) -> None:
    """Refuse settings that ``owner`` does not know, and values outside their domain.

    Raises:
        ValueError: either.
    """
    for name, value in settings.items():
        if name not in known:
            raise ValueError(f'{owner} does not know the setting `{name}`: it takes '
                             f'{", ".join(f"`{each}`" for each in known)}. Remove it or correct its name')
        domain = _SETTINGS.get(name)
        if domain is None or (value is None or isinstance(value, str)) and value in domain.choices:
            continue
        if name == 'k' and isinstance(value, (Tensor, tuple, list)):
            _check_table(name, value)
        elif (domain.kind is None or not isinstance(value, domain.kind)
              or isinstance(value, bool) and domain.kind is not bool
              or not domain.low <= value <= domain.high):
            raise ValueError(f'`{name}` must be {domain.expected}, got {value!r}')


def _check_table(name: str, table: Tensor | tuple | list) -> None:
    if isinstance(table, Tensor):
        if table.dim() != 1 or table.dtype != torch.int64:
            raise ValueError(f'`{name}` as a tensor must be one int64 per class, got {table.dtype} of shape '
                             f'{tuple(table.shape)}')
        table = table.tolist()
    if not table:
        raise ValueError(f'`{name}` as a table must hold one integer per class, got an empty one')
    for class_index, entry in enumerate(table):
        if not isinstance(entry, numbers.Integral) or isinstance(entry, bool) or entry < 1:
            raise ValueError(f'`{name}[{class_index}]` must be {_COUNT.expected}, got {entry!r}')


def settings_of(function: Callable) -> dict[str, Any]:
    """Names and defaults of the settings of a loss function: its keyword-only parameters."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def loss_function(function: Callable) -> Callable:
    """Make a formula a loss function of the family: settings checked, arithmetic safe from autocast.

    An unknown setting is a ValueError, here as in the modules, and autocast is off inside: no operation may lower the
    precision of the arithmetic.
    """
    known = tuple(settings_of(function))

    @functools.wraps(function)
    def checked_function(student, teacher, target=None, weight=None, **settings):
        check_settings(function.__name__, known, settings)
        if not isinstance(student, (Tensor, Upsampled)):
            raise ValueError(f'`student` must be a tensor of logits, got {type(student).__name__}')
        with torch.autocast(device_type=student.device.type, enabled=False):
            return function(student, teacher, target, weight, **settings)

    return checked_function


@functools.lru_cache(maxsize=None)
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=3)


def warn_once(message: str) -> None:
    """Warn once per process and message; silent while a graph is compiled, where a warning would break the graph."""
    if not torch.compiler.is_compiling():
        _warn_once(message)


class Inputs(NamedTuple):
    """The checked tensors of a call, and how the loss is reduced."""

    student: Logits  #: (N, C, *), of any floating type
    teacher: Logits  #: (N, C, *), of any floating type, without gradient
    target: Tensor | None  #: (N, *) int64
    weight: Tensor | None  #: (N, *)
    valid: Tensor  #: (N, *) bool, the positions that count
    all_count: bool  #: whether they all do, as far as one can tell without a look at the tensors
    reduction: str


def checked(student: Logits,
            teacher: Logits,
            target: Tensor | None,
            weight: Tensor | None,
            ignore_index: int | None,
            reduction: str,
            *,
            target_for: str | None = None,
            min_classes: int = 2,
            same_channels: bool = True,
            of_classes: bool = True) -> Inputs:
    """Check the tensors of a call; what a loss is computed from.

    Args:
        student: (N, C) or (N, C, *) logits, any floating type.
        teacher: the same shape and device, any floating type, not requiring grad.
        target: (N, *) int64, classes or ``ignore_index``; may be None where no target is needed.
        weight: (N, *) factors, or None.
        ignore_index: the label of positions that do not count, or None.
        reduction: 'mean', 'sum' or 'none'.
        target_for: name of the loss when it cannot do without a target.
        min_classes: the smallest C that makes sense.
        same_channels: whether C must be the same in both.
        of_classes: whether dimension 1 are the classes of ``target``; channels of features are not.

    Raises:
        ValueError: any of these does not hold.
    """
    _check_logits(student, teacher, min_classes, same_channels)
    if target is not None:
        # Labels that say neither a class nor what is ignored are not read.
        _check_target(target, student, ignore_index, of_classes and not (target_for is None and ignore_index is None))
    elif target_for:
        raise ValueError(f'{target_for} needs `target`, (N, *) int64 class indices, got None; pass the labels or use '
                         'a loss that needs none (KDLoss, GDKDLoss)')
    if weight is not None:
        if not isinstance(weight, Tensor):
            raise ValueError(f'`weight` must be a tensor, got {type(weight).__name__}; for one factor of the whole '
                             'loss use loss_weight')
        _check_position_map('weight', weight, student)
    valid = valid_positions(student.shape, student.device, target, weight, ignore_index)
    all_count = weight is None and (target is None or ignore_index is None)
    return Inputs(student, teacher, target, weight, valid, all_count, reduction)


def valid_positions(shape: torch.Size, device: torch.device, target: Tensor | None, weight: Tensor | None,
                    ignore_index: int | None) -> Tensor:
    """Positions that count, (N, *) bool: the label is not ``ignore_index`` and the weight is not 0.

    Args:
        shape: (N, C, *), of the logits.
        device: of the result.
        target: (N, *) labels, or None when nothing is ignored.
        weight: (N, *) weights, or None.
        ignore_index: the ignored label, or None when every label counts.
    """
    if target is not None and ignore_index is not None:
        valid = target != ignore_index
    else:
        valid = torch.ones(shape[:1] + shape[2:], dtype=torch.bool, device=device)
    if weight is not None:
        valid = valid & (weight != 0)
    return valid


def _check_logits(student: Logits, teacher: Logits, min_classes: int, same_channels: bool) -> None:
    for name, logits in (('student', student), ('teacher', teacher)):
        if isinstance(logits, Upsampled):
            logits.check(name)
            logits = logits.logits
        if not isinstance(logits, Tensor):
            raise ValueError(f'`{name}` must be a tensor of logits, got {type(logits).__name__}')
        if not logits.is_floating_point():
            raise ValueError(f'`{name}` must hold floating-point logits, got {logits.dtype}')
        if logits.dim() < 2:
            raise ValueError(f'`{name}` must be (N, C) or (N, C, *), got shape {tuple(logits.shape)}')
        if name == 'teacher' and logits.requires_grad:
            raise ValueError('`teacher` must not require grad: a loss of this family teaches only the student. Run the '
                             'teacher under torch.no_grad() or pass teacher.detach()')
    if same_channels and student.shape[1] != teacher.shape[1]:
        raise ValueError(f'`student` and `teacher` must have the same classes in dimension 1, got {student.shape[1]} '
                         f'and {teacher.shape[1]}; distil between heads of one label set')
    if (student.shape[0], *student.shape[2:]) != (teacher.shape[0], *teacher.shape[2:]):
        raise ValueError(f'`teacher` must have the shape of `student`, {tuple(student.shape)}, got '
                         f'{tuple(teacher.shape)}; resize one to the other first')
    if student.device != teacher.device:
        raise ValueError(f'`teacher` must be on the device of `student`, {student.device}, got {teacher.device}; '
                         'move it there')
    if student.shape[1] < min_classes:
        raise ValueError(f'`student` must have at least {min_classes} classes in dimension 1, got {student.shape[1]}; '
                         'for one sigmoid output use BinaryKLLoss')


def _check_position_map(name: str, value: Tensor, student: Logits) -> None:
    expected = (student.shape[0], *student.shape[2:])
    if tuple(value.shape) != expected:
        hint = '; squeeze dimension 1' if tuple(value.shape) == (expected[0], 1, *expected[1:]) else ''
        raise ValueError(f'`{name}` must have one entry per position, shape {expected}, got {tuple(value.shape)}{hint}')
    if value.device != student.device:
        raise ValueError(f'`{name}` must be on the device of `student`, {student.device}, got {value.device}; '
                         'move it there')


def _check_target(target: Any, student: Logits, ignore_index: int | None, of_classes: bool) -> None:
    if not isinstance(target, Tensor):
        raise ValueError(f'`target` must be a tensor of class indices, got {type(target).__name__}')
    if target.dtype != torch.int64:
        way_out = ('soft labels (of mixup, cutmix or label smoothing) have no target class, use a loss that needs '
                   'none (KDLoss, GDKDLoss, BinaryKLLoss)'
                   if target.is_floating_point() else 'convert it with target.long()')
        raise ValueError(f'`target` must hold int64 class indices, got {target.dtype} of shape {tuple(target.shape)}; '
                         f'{way_out}')
    _check_position_map('target', target, student)
    if not of_classes:
        return
    num_classes = student.shape[1]
    if ignore_index is not None and 0 <= ignore_index < num_classes:
        warn_once(f'ignore_index = {ignore_index} is also one of the {num_classes} classes: positions of that class '
                  'are left out. Pass ignore_index=None if they should count')
    check_labels(target, num_classes, ignore_index)


_LABELS_AT_ONCE = 2**17


def check_labels(target: Tensor, num_classes: int, ignore_index: int | None) -> None:
    """Labels must be classes or ``ignore_index``, without the host waiting for the device.

    On the CPU a look at the labels costs nothing else and the error is a ValueError that names the labels. On a device
    (and inside a compiled graph) the condition goes into the stream as an assertion, ``torch._assert_async``: the
    host does not wait, and a violation stops the run at the next synchronisation, as it does for torch's own
    ``cross_entropy``. Under ``torch.vmap`` over the targets a data-dependent check is impossible and is left out.
    """
    expectation = f'`target` must hold classes 0 .. {num_classes - 1} or ignore_index = {ignore_index}'
    on_device = torch.compiler.is_compiling() or target.device.type != 'cpu'
    if not on_device and torch._C._functorch.is_functorch_wrapped_tensor(target) and _is_mapped(target):
        return
    # Piece by piece on a CPU: maps of truth values of a full-size target are not small.
    for labels in [target] if on_device else target.reshape(-1).split(_LABELS_AT_ONCE):
        wrong = (labels < 0) | (labels >= num_classes)
        if ignore_index is not None:
            wrong = wrong & (labels != ignore_index)
        if on_device:
            torch._assert_async(~wrong.any(), expectation)
        elif wrong.any():
            found = sorted(set(labels[wrong].tolist()))
            raise ValueError(f'{expectation}, got {found[:5]}{" and more" if len(found) > 5 else ""}; map other labels '
                             'to ignore_index')


def _is_mapped(tensor: Tensor) -> bool:
    """Whether ``torch.vmap`` runs over the tensor, at any depth of torch.func transforms."""
    functorch = torch._C._functorch
    while functorch.is_gradtrackingtensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return functorch.is_batchedtensor(tensor)
