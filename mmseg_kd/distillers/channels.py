"""How many channels the features have that terms compare, found out before training."""
import functools
from collections.abc import Callable, Collection, Sequence

from torch import Tensor, nn

from mmseg_kd.taps import AUX_LOGITS, LOGITS, module_calls, read_tap, tapped_modules
from mmseg_kd.teachers import Teacher
from mmseg_kd.teachers.probe import small_pass

from .adapters import adapter
from .terms import DistillTerm

__all__ = ['fit_features']


def fit_features(terms: Sequence[DistillTerm], student: nn.Module, teachers: Sequence[Teacher],
                 logits: Callable[[nn.Module, Tensor], Tensor]) -> None:
    """Give each term on features its adapter, one a teacher, and refuse features that cannot be compared.

    The channels are those of one forward pass on a small black image, in eval mode and without gradient; buffers,
    random numbers and modes are left as they were.

    Args:
        terms: The terms.
        student: The student.
        teachers: The teachers.
        logits: Computes the student's logits from (model, images).

    Raises:
        ValueError: the channels differ and the term has no adapter, or it has one and the channels are not known.
    """
    terms = [term for term in terms if term.reads_features]
    if not terms:
        return
    of_student = _channels(student, {tap for term in terms for tap in term.student_taps},
                           functools.partial(_outputs, student, logits))
    taps = {tap for term in terms for tap in term.teacher_taps}
    for number, teacher in enumerate(teachers):
        of_teacher = _channels(teacher.model, taps, teacher.run)
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
                "Add adapter=dict(kind='linear') to the term, a 1x1 convolution that is trained along and is not part "
                'of the student; or use AttentionTransferLoss, which compares maps without channels.')


def _channels(model: nn.Module, taps: Collection[str],
              run: Callable[[Tensor, Collection[str]], dict]) -> dict[str, int]:
    """Channels of each tap that has a map (N, C, h, w) or a vector (N, C); others are left out."""
    if next(model.parameters(), None) is None:
        return {}  # a teacher whose logits were computed before
    try:
        outputs = small_pass(lambda image: run(image, taps), model)
    except ValueError:
        return {}  # It may run in training; then the taps are read, or refused with a reason.
    found = {}
    for tap in taps:
        try:
            value = read_tap(outputs, tap, '', '')
        except ValueError:
            continue
        if len(value.shape) in (2, 4):
            found[tap] = value.shape[1]
    return found


def _outputs(model: nn.Module, logits: Callable, image: Tensor, taps: Collection[str]) -> dict:
    with module_calls(tapped_modules(model, taps)) as calls:
        values = logits(model, image)
    return {**calls.outputs, LOGITS: values, AUX_LOGITS: values}
