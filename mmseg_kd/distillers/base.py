"""What all distilled models share, whichever library their student is from."""
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

from torch import Tensor, nn

from mmseg_kd.taps import AUX_LOGITS, LOGITS, check_tap, classifier_inputs, is_module, read_tap
from mmseg_kd.teachers import Host, Teacher, build_teachers
from mmseg_kd.teachers.class_names import check_names
from mmseg_kd.teachers.ema import EmaTeacher

from .channels import fit_features
from .dual_head import auxiliary_classifier
from .processes import batch_of_all_processes
from .terms import DistillTerm, build_terms

__all__ = ['Distilled', 'TERM_PREFIX']

_TRAIN_ONLY = 'distill'
_EMA_TEACHER = 'ema_teacher'
#: What the names of the distillation losses begin with, in the log.
TERM_PREFIX = 'distill.'


class Distilled:
    """Mixin that makes a model its own distilled form; put it before the model's class.

    The model keeps its parameter names and behaviour. Each of ``teachers`` is a guest (see
    :class:`~Teacher`); all that exists only for training lies under the one child ``distill``, which trains
    like any module but is absent from ``state_dict``; :class:`mmseg_kd.engine.TrainOnlyStateHook` keeps it elsewhere
    in a Runner's checkpoint.
    """

    #: Registry scope of the library that the student is from.
    scope: str
    #: Name of the child that makes the logits in models of that library.
    head_name: ClassVar[str]
    #: Dimensions of a teacher's logits: 4, maps (N, C, h, w), or 2, vectors (N, C); None: neither.
    logit_dims: ClassVar[int | None] = None
    #: Taps that are no modules and that student and teacher have.
    answers: tuple[str, ...] = (LOGITS, )
    #: What a term's ``weight`` may be.
    weights: tuple[str, ...] = ()
    #: Whether a teacher's logits may come from a cache.
    reads_cache: bool = False

    def _init_distillation(self, teacher: dict | list[dict], distill: dict, dual_head: dict | None,
                           ignore_index: int | None) -> None:
        """Build teacher, terms and auxiliary classifier and check that they fit the student.

        Raises:
            ValueError: a setting does not fit; the message names it.
        """
        if isinstance(teacher, dict) and teacher.get('cache') is not None and not self.reads_cache:
            raise ValueError('`teacher.cache`: a cache holds the logits of a segmentor; the teacher of another model '
                             'runs beside it: give `config` and `checkpoint` instead.')
        terms = build_terms(distill, ignore_index, self.weights)
        self.teachers, self._teacher_weights = build_teachers(
            teacher, Host(self, self.scope, self.teacher_logits, self.head_name, self.logit_dims))
        for term in terms.values():
            for tap in term.student_taps:
                if dual_head is None or tap != AUX_LOGITS:
                    check_tap(self, tap, term.setting, 'student', self.answers)
            for guest in self.teachers:
                for tap in term.teacher_taps:
                    check_tap(guest.model, tap, term.setting, 'teacher', self.answers)
        self._check_classes(terms)
        for term in terms.values():
            for guest in self.teachers:
                if guest.no_logits and not all(map(is_module, term.teacher_taps)):
                    raise ValueError(f'{guest.no_logits}, and `{term.setting}` reads logits. Take another teacher, or '
                                     'name modules of student and teacher there.')
        fit_features(list(terms.values()), self, self.teachers, self.teacher_logits)
        self.distill = nn.ModuleDict(dict(terms=terms))
        if dual_head is not None:
            if not any(term.student_tap == AUX_LOGITS for term in terms.values()):
                raise ValueError("`dual_head`: no term trains it; give one of `distill` on='aux_logits', or remove "
                                 "`dual_head`.")
            self.distill['dual_head'] = auxiliary_classifier(dual_head, self.main_classifier())
        self.register_state_dict_post_hook(_drop_train_only)
        self.register_load_state_dict_post_hook(_forgive_train_only)

    @property
    def teacher(self) -> Teacher:
        """The only teacher, or the first of several."""
        return self.teachers[0]

    @property
    def ema_teachers(self) -> list[EmaTeacher]:
        """The teachers that are averages of the student."""
        return [teacher for teacher in self.teachers if isinstance(teacher, EmaTeacher)]

    @property
    def terms(self) -> nn.ModuleDict:
        """The distillation terms by name."""
        return self.distill['terms']

    @property
    def auxiliary_classifier(self) -> nn.Module | None:
        """The second classifier of a dual head; None without ``dual_head``."""
        return self.distill['dual_head'] if 'dual_head' in self.distill else None

    def main_classifier(self) -> nn.Module:
        """The layer that turns the shared features into the main logits; one file per library knows where it is.

        Raises:
            ValueError: the student has no such layer; the message says why.
        """
        raise NotImplementedError

    def _shared_features(self) -> AbstractContextManager:
        """Collects what the main classifier sees while the block runs, for a dual head; without one yields None."""
        second = self.auxiliary_classifier
        return nullcontext() if second is None else classifier_inputs(self.main_classifier())

    def check_class_names(self, names: Sequence[str] | None) -> None:
        """Refuse teachers whose logits are read and stand for other classes than these of the student's data set.

        Raises:
            ValueError: as :func:`~check_names`.
        """
        if any(term.reads_logits for term in self.terms.values()):
            for teacher in self.teachers:
                check_names(names, teacher.classes)

    def forward(self, inputs, data_samples=None, mode: str = 'tensor', **kwargs):
        """The student's; in training with several processes the distillation terms are means over all their positions.

        The student's own losses stay the library's, which divide by what one process holds.
        """
        with batch_of_all_processes() if mode == 'loss' else nullcontext():
            return super().forward(inputs, data_samples, mode=mode, **kwargs)

    def parse_losses(self, losses: dict) -> tuple[Tensor, OrderedDict]:
        """Sum the losses as the library does, and keep the two objectives apart for those who ask.

        Returns:
            The total, whose attribute ``objectives`` is the pair (supervised, distillation) that it is the sum of and
            whose attribute ``terms`` names what it adds up, and what is logged. The logged values are detached: the
            training loop keeps them into the next iteration, and with them it would keep a graph that gradient
            alignment, which goes backward twice, has not freed.
        """
        total, log_vars = super().parse_losses(losses)
        parts = ([], [])
        for name, value in log_vars.items():
            if 'loss' in name and name != 'loss':
                parts[name.startswith(TERM_PREFIX)].append(value)
        total.objectives = tuple(sum(part) for part in parts)
        log_vars = OrderedDict((name, value.detach()) for name, value in log_vars.items())
        total.terms = {name: value for name, value in log_vars.items() if 'loss' in name and name != 'loss'}
        return total, log_vars

    def _ask_teachers(self, inputs: Tensor, data_samples: list, *scored) -> list[dict[str, Tensor]]:
        """Run the teachers.

        Best before the student: what a teacher needs on its way is free again when the student's own maps, which wait
        for the backward pass, take memory.

        Args:
            inputs: Images (N, 3, H, W) as the student sees them.
            data_samples: Their data samples.
            *scored: Of a detector, where its losses were computed; a teacher scores the same positions.

        Returns:
            Of each teacher, tap to tensor; nothing while no term counts, when no teacher runs.
        """
        # After the stop of every schedule there is nothing to ask a teacher.
        taps = {tap for term in self.terms.values() if term.current_scale() for tap in term.teacher_taps}
        return [teacher(inputs, data_samples, taps, *scored) for teacher in self.teachers] if taps else []

    def _distill_losses(self, student: dict[str, Tensor], teachers: list[dict[str, Tensor]], data_samples: list,
                        *scored) -> dict[str, Tensor]:
        """Compute every term against each of the teachers.

        Args:
            student: Tap to tensor of the student; ``'logits'`` and ``'aux_logits'`` as their classifiers return them.
            teachers: What :meth:`_ask_teachers` returned.
            data_samples: Data samples of the images with labels.
            *scored: As there.

        Returns:
            ``distill.loss_<name>`` to a scalar, for each term: the weighted sum over the teachers.
        """
        scales = {name: term.current_scale() for name, term in self.terms.items()}
        of_student = {name: [read_tap(student, tap, term.setting, 'student') for tap in term.student_taps]
                      for name, term in self.terms.items()}
        losses = {name: term.zero(of_student[name]) for name, term in self.terms.items() if not scales[name]}
        active = {name: term for name, term in self.terms.items() if scales[name]}
        for index, (outputs, weight) in enumerate(zip(teachers, self._teacher_weights, strict=bool(active))):
            for name, term in active.items():
                theirs = [read_tap(outputs, tap, term.setting, 'teacher') for tap in term.teacher_taps]
                ours = term.adapted(index, of_student[name], [value.shape[2:] for value in theirs])
                value = scales[name] * weight * sum(
                    self._term_loss(term, *pair, data_samples, *scored) for pair in zip(ours, theirs, strict=True))
                losses[name] = losses[name] + value if name in losses else value
        return {f'{TERM_PREFIX}loss_{name}': losses[name] for name in self.terms}

    def _term_loss(self, term: DistillTerm, student: Tensor, teacher: Tensor, data_samples: list) -> Tensor:
        """Loss of one term on one pair of taps: bring values and labels to one form, each library its own, and call
        ``term.loss``."""
        raise NotImplementedError

    def init_weights(self) -> None:
        """Initialise the student as if nothing else were there; what trains beside it has its weights already."""
        distill = self._modules.pop(_TRAIN_ONLY)
        try:
            super().init_weights()
        finally:
            self._modules[_TRAIN_ONLY] = distill

    def train_only_state(self) -> dict[str, Tensor]:
        """State dict of what exists only for training: auxiliary classifier, adapters, averages of the student."""
        state = dict(self.distill.state_dict())
        for index, teacher in enumerate(self.ema_teachers):
            state |= {f'{_EMA_TEACHER}.{index}.{name}': value for name, value in teacher.state_dict().items()}
        return state

    def load_train_only_state(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`train_only_state` returned; all keys must fit."""
        for index, teacher in enumerate(self.ema_teachers):
            prefix = f'{_EMA_TEACHER}.{index}.'
            teacher.load_state_dict(
                {name[len(prefix):]: value for name, value in state.items() if name.startswith(prefix)})
        self.distill.load_state_dict(
            {name: value for name, value in state.items() if not name.startswith(f'{_EMA_TEACHER}.')})

    def _apply(self, fn, *args, **kwargs):
        for teacher in self.teachers:
            teacher.apply_fn(fn)
        return super()._apply(fn, *args, **kwargs)


def _drop_train_only(module, state_dict, prefix, local_metadata):
    for key in [key for key in state_dict if key.startswith(f'{prefix}{_TRAIN_ONLY}.')]:
        del state_dict[key]


def _forgive_train_only(module, incompatible_keys):
    missing = incompatible_keys.missing_keys
    # A prefix stands before the name where the model is part of another (an EMA copy).
    missing[:] = [key for key in missing if _TRAIN_ONLY not in key.split('.')[:-1]]
