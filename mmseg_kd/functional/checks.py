"""What the losses refuse, and how they say it: argument, expectation, what was got, the way out.

Settings (temperatures, weights, names) are checked where a loss is built and again where it is called; tensors where
it is called. All of it costs no device synchronisation: shapes, types and devices are known to the host, and the range
of the labels is checked on the device (:func:`check_labels`).
"""
import functools
import inspect
import math
import numbers
import warnings
from typing import Any, Callable, Optional, Tuple

import torch
from torch import Tensor

from .reduce import valid_positions
from .upsampled import Logits, Upsampled, at_full_size


def _number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f'`{name}` must be a finite number, got {value!r}')


def _positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not (math.isfinite(value) and value > 0):
        raise ValueError(f'`{name}` must be a positive finite number, got {value!r}')


def _positive_or_none(name: str, value: Any) -> None:
    if value is not None:
        _positive(name, value)


def _share(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < value <= 1:
        raise ValueError(f'`{name}` must be a number above 0 and at most 1, got {value!r}')


def _count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f'`{name}` must be an integer of at least 1, got {value!r}')


def _count_or_none(name: str, value: Any) -> None:
    if value is not None:
        _count(name, value)


def _count_or_table(name: str, value: Any) -> None:
    if isinstance(value, Tensor):
        if value.dim() != 1 or value.dtype != torch.int64:
            raise ValueError(f'`{name}` as a tensor must be one int64 per class, got {value.dtype} of shape '
                             f'{tuple(value.shape)}')
    elif isinstance(value, (tuple, list)):
        if not value:
            raise ValueError(f'`{name}` as a table must hold one integer per class, got an empty one')
        for class_index, entry in enumerate(value):
            _count(f'{name}[{class_index}]', entry)
    else:
        _count(name, value)


def _integer_or_none(name: str, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, numbers.Integral)):
        raise ValueError(f'`{name}` must be an integer, or None to ignore nothing, got {value!r}')


def _one_of(*choices: Optional[str]) -> Callable[[str, Any], None]:

    def check(name: str, value: Any) -> None:
        if not (value is None or isinstance(value, str)) or value not in choices:
            raise ValueError(f'`{name}` must be one of {", ".join(map(repr, choices))}, got {value!r}')

    return check


# A setting means the same in every loss of the family, so its name says how it is checked.
_SETTINGS = dict(
    temperature=_positive,
    loss_weight=_number,
    ignore_index=_integer_or_none,
    reduction=_one_of('mean', 'sum', 'none'),
    alpha=_number,
    beta=_number,
    gamma=_number,
    epsilon=_number,
    cap=_positive_or_none,
    w0=_number,
    w1=_number,
    w2=_number,
    k=_count_or_table,
    k_max=_count_or_none,
    ratio=_positive_or_none,
    keep=_share,
    strategy=_one_of('best', 'worst'),
    divergence=_one_of('forward', 'reverse', 'both'),
    standardize=_one_of(None, 'whole', 'group', 'rest'),
)


def check_settings(owner: str, known: Tuple[str, ...], settings: dict) -> None:
    """Refuse settings that ``owner`` does not know, and values outside their domain."""
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(f'{owner} does not know the setting {", ".join(f"`{name}`" for name in unknown)}: it takes '
                         f'{", ".join(f"`{name}`" for name in known)}. Remove it or correct its name')
    for name, value in settings.items():
        _SETTINGS.get(name, lambda name, value: None)(name, value)


def settings_of(function: Callable) -> dict:
    """Names and defaults of the settings of a loss function: its keyword-only parameters."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def loss_function(function: Callable, upsamples: bool = False) -> Callable:
    """Make a formula a loss function of the family: settings checked, arithmetic safe from autocast.

    An unknown setting is a ValueError, here as in the modules, and autocast is off inside: no operation may lower
    the precision that :func:`checked` establishes. Logits that are :class:`~.upsampled.Upsampled` are computed, unless
    the function ``upsamples`` by itself.
    """
    known = tuple(settings_of(function))

    @functools.wraps(function)
    def checked_function(student, teacher, target=None, weight=None, **settings):
        check_settings(function.__name__, known, settings)
        if not isinstance(student, (Tensor, Upsampled)):
            raise ValueError(f'`student` must be a tensor of logits, got {type(student).__name__}')
        with torch.autocast(device_type=student.device.type, enabled=False):
            if not upsamples:
                student, teacher = at_full_size(student), at_full_size(teacher)
            return function(student, teacher, target, weight, **settings)

    return checked_function


#: A loss function whose body ends in an operator, which may upsample.
operator_loss_function = functools.partial(loss_function, upsamples=True)


@functools.lru_cache(maxsize=None)
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=3)


def warn_once(message: str) -> None:
    """Warn once per process and message; silent while a graph is compiled, where a warning would break the graph."""
    if not torch.compiler.is_compiling():
        _warn_once(message)


def _check_logits(student: Tensor, teacher: Tensor, min_classes: int, same_channels: bool) -> None:
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
    if same_channels and student.shape[1] != teacher.shape[1]:
        raise ValueError(f'`student` and `teacher` must have the same classes in dimension 1, got {student.shape[1]} '
                         f'and {teacher.shape[1]}; distil between heads of one label set')
    if (student.shape[0], *student.shape[2:]) != (teacher.shape[0], *teacher.shape[2:]):
        raise ValueError(f'`teacher` must have the shape of `student`, {tuple(student.shape)}, got '
                         f'{tuple(teacher.shape)}; resize one to the other first')
    if student.device != teacher.device:
        raise ValueError(f'`teacher` must be on the device of `student`, {student.device}, got {teacher.device}; '
                         'move it there')
    if teacher.requires_grad:
        raise ValueError('`teacher` must not require grad: a loss of this family teaches the student alone. Run the '
                         'teacher under torch.no_grad() or pass teacher.detach()')
    if student.shape[1] < min_classes:
        raise ValueError(f'`student` must have at least {min_classes} classes in dimension 1, got {student.shape[1]}; '
                         'for one sigmoid output use BinaryKLLoss')


def _check_position_map(name: str, value: Tensor, student: Tensor) -> None:
    expected = (student.shape[0], *student.shape[2:])
    if tuple(value.shape) != expected:
        hint = '; squeeze dimension 1' if tuple(value.shape) == (expected[0], 1, *expected[1:]) else ''
        raise ValueError(f'`{name}` must have one entry per position, shape {expected}, got {tuple(value.shape)}{hint}')
    if value.device != student.device:
        raise ValueError(f'`{name}` must be on the device of `student`, {student.device}, got {value.device}; '
                         'move it there')


_LABELS_AT_ONCE = 2**17


def check_labels(target: Tensor, num_classes: int, ignore_index: Optional[int]) -> None:
    """Labels must be classes or ``ignore_index``, without the host waiting for the device.

    On the CPU a look at the labels costs nothing else and the error is a ValueError that names the labels. On a device
    (and inside a compiled graph) the condition goes into the stream as an assertion, ``torch._assert_async``: the
    host does not wait, and a violation stops the run at the next synchronisation, as it does for torch's own
    ``cross_entropy``. Under ``torch.vmap`` over the targets a data-dependent check is impossible and is left out.
    """
    def allowed(labels: Tensor) -> Tensor:
        inside = (labels >= 0) & (labels < num_classes)
        return inside if ignore_index is None else inside | (labels == ignore_index)

    expectation = f'`target` must hold classes 0 .. {num_classes - 1} or ignore_index = {ignore_index}'
    if torch.compiler.is_compiling() or target.device.type != 'cpu':
        torch._assert_async(allowed(target).all(), expectation)
    elif not _is_mapped(target):
        # Piece by piece: maps of truth values of a full-size target are not small.
        for labels in target.reshape(-1).split(_LABELS_AT_ONCE):
            wrong = labels[~allowed(labels)]
            if len(wrong):
                found = sorted(set(wrong.tolist()))
                raise ValueError(f'{expectation}, got {found[:5]}{" and more" if len(found) > 5 else ""}; map other '
                                 'labels to ignore_index')


def _is_mapped(tensor: Tensor) -> bool:
    """Whether ``torch.vmap`` runs over the tensor, at any depth of torch.func transforms."""
    functorch = torch._C._functorch
    while functorch.is_gradtrackingtensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return functorch.is_batchedtensor(tensor)


def _check_target(target: Any, student: Tensor, ignore_index: Optional[int], of_classes: bool) -> None:
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


def promoted(student: Logits, teacher: Logits) -> Tuple[Logits, Logits]:
    """Both in one type, float32 or better."""
    dtype = torch.promote_types(student.dtype, teacher.dtype)
    dtype = dtype if dtype == torch.float64 else torch.float32
    return student.to(dtype), teacher.to(dtype)


def checked(student: Logits,
            teacher: Logits,
            target: Optional[Tensor],
            weight: Optional[Tensor],
            ignore_index: Optional[int],
            *,
            target_for: Optional[str] = None,
            min_classes: int = 2,
            same_channels: bool = True,
            of_classes: bool = True,
            as_given: bool = False) -> Tuple[Logits, Logits, Tensor]:
    """Check the tensors of a call; return both logits in one type, float32 or better, and the valid positions.

    Args:
        student: (N, C) or (N, C, *) logits, any floating type.
        teacher: the same shape and device, any floating type, not requiring grad.
        target: (N, *) int64, classes or ``ignore_index``; may be None where no target is needed.
        weight: (N, *) factors, or None.
        ignore_index: the label of positions that do not count, or None.
        target_for: name of the loss when it cannot do without a target.
        min_classes: the smallest C that makes sense.
        same_channels: whether C must be the same in both.
        of_classes: whether dimension 1 are the classes of ``target``; channels of features are not.
        as_given: leave the types as they are, for an operator that can read them.

    Raises:
        ValueError: any of these does not hold.
    """
    _check_logits(student, teacher, min_classes, same_channels)
    if target is None and target_for:
        raise ValueError(f'{target_for} needs `target`, (N, *) int64 class indices, got None; pass the labels or use '
                         'a loss that needs none (KDLoss, GDKDLoss)')
    if target is not None:
        _check_target(target, student, ignore_index, of_classes)
    if weight is not None:
        if not isinstance(weight, Tensor):
            raise ValueError(f'`weight` must be a tensor, got {type(weight).__name__}; for one factor of the whole '
                             'loss use loss_weight')
        _check_position_map('weight', weight, student)
    valid = valid_positions(student.shape, student.device, target, weight, ignore_index)
    return (student, teacher, valid) if as_given else (*promoted(student, teacher), valid)
