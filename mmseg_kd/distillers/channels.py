"""How many channels the features have that terms compare, found out before training."""
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn

from mmseg_kd.functional import Upsampled
from mmseg_kd.taps import AUX_LOGITS, LOGITS, module_outputs, read_tap

from .adapters import adapter
from .terms import DistillTerm

__all__ = ['fit_features']

# One of these suits every network that was tried: pyramid pooling wants more than 64, networks for CIFAR exactly 32.
_SIDES = (128, 224, 32, 512)


def fit_features(terms: Sequence[DistillTerm], student: nn.Module, teachers: Sequence[nn.Module],
                 logits: Callable[[nn.Module, Tensor], Tensor]) -> None:
    """Give each term on features its adapter, one a teacher, and refuse features that cannot be compared.

    The channels are those of one forward pass on a small black image, in eval mode and without gradient; buffers,
    random numbers and modes are left as they were.

    Args:
        terms: The terms.
        student: The student.
        teachers: The teachers' models.
        logits: Computes the logits from (model, images).

    Raises:
        ValueError: the channels differ and the term has no adapter, or it has one and the channels are not known.
    """
    terms = [term for term in terms if term.reads_features]
    if not terms:
        return
    of_student = _channels(student, {tap for term in terms for tap in term.student_taps}, logits)
    taps = {tap for term in terms for tap in term.teacher_taps}
    for number, teacher in enumerate(teachers):
        of_teacher = _channels(teacher, taps, logits)
        for term in terms:
            pairs = [(of_student.get(own), of_teacher.get(other))
                     for own, other in zip(term.student_taps, term.teacher_taps, strict=True)]
            if term.adapter_settings is not None:
                _check_known(term, pairs)
                term.adapters.append(adapter(term.adapter_settings, pairs, f'{term.name}.{number}'))
            else:
                _check_equal(term, pairs)


def _check_known(term: DistillTerm, pairs: list[tuple[int | None, int | None]]) -> None:
    for taps, channels in zip(zip(term.student_taps, term.teacher_taps, strict=True), pairs, strict=True):
        for tap, number, whose in zip(taps, channels, ('student', 'teacher'), strict=True):
            if number is None:
                raise ValueError(
                    f'`distill.{term.name}.adapter`: the channels of {tap!r} of the {whose} are not known: a forward '
                    'pass in eval mode did not bring a map (N, C, h, w) there. Name a module that gives one.')


def _check_equal(term: DistillTerm, pairs: list[tuple[int | None, int | None]]) -> None:
    if not getattr(term.loss, 'compares_channels', True):
        return
    for own, other, (student, teacher) in zip(term.student_taps, term.teacher_taps, pairs, strict=True):
        if None not in (student, teacher) and student != teacher:
            raise ValueError(
                f'`{term.setting}`: {own!r} of the student has {student} channels, {other!r} of the teacher {teacher}. '
                "Add adapter=dict(kind='linear') to the term, a 1x1 convolution that is trained along and is no part "
                'of the student; or use AttentionTransferLoss, which compares maps without channels.')


@torch.no_grad()
def _channels(model: nn.Module, taps: Collection[str], logits) -> dict[str, int]:
    """Channels of each tap that has a map (N, C, h, w) or a vector (N, C); others are left out."""
    parameter = next(model.parameters(), None)
    if parameter is None:
        return {}  # a teacher whose logits were computed before
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            outputs = _outputs(model, taps, logits, parameter)
    finally:
        for module, training in modes:
            module.training = training
    found = {}
    for tap in taps:
        try:
            value = read_tap(outputs, tap, '', '')
        except ValueError:
            continue  # It may be there in training; then it is read, or refused with a reason.
        if len(value.shape) in (2, 4):
            found[tap] = value.shape[1]
    return found


def _outputs(model: nn.Module, taps: Collection[str], logits, parameter: Tensor) -> dict:
    for side in _SIDES:
        image = torch.zeros(1, 3, side, side, dtype=parameter.dtype, device=parameter.device)
        with module_outputs(model, taps) as outputs:
            try:
                values: Tensor | Upsampled = logits(model, image)
            except (RuntimeError, ValueError, IndexError, AssertionError):
                continue  # another size
        return {**outputs, LOGITS: values, AUX_LOGITS: values}
    return {}
