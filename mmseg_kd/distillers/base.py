"""What every distilled model has, whoever trains it; and what those add that are OpenMMLab models."""
from collections import OrderedDict
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn

from mmseg_kd.functional.evaluate import joined_batch
from mmseg_kd.step_loss import Objectives, StepLoss
from mmseg_kd.taps import AUX_LOGITS, LOGITS, ModuleCalls, check_tap, is_module, module_calls, read_tap, tapped_modules
from mmseg_kd.teachers import Host, Teacher, build_teachers
from mmseg_kd.teachers.class_map import ClassMap
from mmseg_kd.teachers.class_names import check_names, match_names
from mmseg_kd.teachers.ema import EmaTeacher

from .channels import fit_features
from .compare import two_classes
from .dual_head import auxiliary_classifier
from .runner_state import begin_step
from .terms import DistillTerm, as_map, build_terms

__all__ = ['TERM_PREFIX', 'Distilled', 'Distilling', 'are_joined', 'as_step_loss', 'batch_of_all_processes',
           'share_of_all']

_TRAIN_ONLY = 'distill'
_EMA_TEACHER = 'ema_teacher'
#: What the names of the distillation losses begin with, in the log.
TERM_PREFIX = 'distill.'


class Distilling:
    """Mixin with a student, its teachers and the terms that compare them; put it before ``nn.Module`` or a model.

    Two kinds of model have it. :class:`Distilled` is for models that are their own students. :class:`~.Distiller`
    holds any student beside it. Both own one child ``distill`` with all that exists only for training: the terms with
    their adapters, and the second classifier of a dual head. The teachers are guests, not children (see
    :class:`~.Teacher`).
    """

    student: nn.Module
    teachers: tuple[Teacher, ...] = ()
    _owner: int | None = None
    #: Taps that are not modules and that student and teacher have.
    answers: tuple[str, ...] = (LOGITS, )
    #: What a term's ``weight`` may be.
    weights: tuple[str, ...] = ()
    #: Whether a teacher's classes can be mapped to the student's, by ``teacher.class_map`` or equal names.
    maps_classes: bool = True
    #: Whether the logits are maps, of which a term may choose the positions.
    dense: bool = False

    def main_classifier(self) -> nn.Module:
        """The layer that turns the shared features into the main logits.

        Raises:
            ValueError: the student has no such layer; the message says why.
        """
        raise NotImplementedError

    @staticmethod
    def teacher_logits(model: nn.Module, inputs: Tensor) -> Tensor:
        """Logits of a model in eval mode for a batch of images (N, 3, H, W), or answers by tap."""
        raise NotImplementedError

    def _check_classes(self, terms: nn.ModuleDict) -> None:
        """Refuse terms that compare what does not mean the same, before anything runs."""
        raise NotImplementedError

    def _term_loss(self, term: DistillTerm, student: Tensor, teacher: Tensor, data_samples: object,
                   at: object | None) -> Tensor:
        """Loss of one term on one pair of taps: bring values and labels to one form, and call ``term.loss``."""
        raise NotImplementedError

    def _start_distilling(self, terms: nn.ModuleDict, teachers: Sequence[Teacher], teacher_weights: Sequence[float],
                          dual_head: dict | None) -> None:
        """Take in terms and teachers, check that they fit the student, and build what trains beside it.

        Raises:
            ValueError: a setting does not fit; the message names it.
        """
        self.teachers, self._teacher_weights = tuple(teachers), tuple(teacher_weights)
        # A copy of the model shares them until it is moved; a number, since a reference would be copied along.
        self._owner = id(self)
        for term in terms.values():
            for tap in term.student_taps:
                if dual_head is None or tap != AUX_LOGITS:
                    check_tap(self.student, tap, term.setting, 'student', self.answers)
            for guest in self.teachers:
                for tap in term.teacher_taps:
                    check_tap(guest.model, tap, term.setting, 'teacher', self.answers)
        self._student_modules = tuple(tapped_modules(self.student, [
            tap for term in terms.values() for tap in term.student_taps]))
        self._check_classes(terms)
        for term in terms.values():
            for guest in self.teachers:
                if guest.no_logits and not all(map(is_module, term.teacher_taps)):
                    raise ValueError(f'{guest.no_logits}, and `{term.setting}` reads logits. Take another teacher, or '
                                     'name modules of student and teacher there.')
        fit_features(list(terms.values()), self.student, self.teachers, self.teacher_logits)
        self.distill = nn.ModuleDict(dict(terms=terms))
        if dual_head is not None:
            if not any(term.student_tap == AUX_LOGITS for term in terms.values()):
                raise ValueError("`dual_head`: no term trains it; give one of `distill` on='aux_logits', or remove "
                                 "`dual_head`.")
            self.distill['dual_head'] = auxiliary_classifier(dual_head, self.main_classifier())

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

    def _student_calls(self, also: Collection[str] = ()) -> AbstractContextManager[ModuleCalls]:
        """Collects, while the block runs the student, the outputs that its terms read.

        Args:
            also: Names of further modules whose outputs are wanted.

        Returns:
            With a dual head its ``arguments[0]`` has the calls of the main classifier.
        """
        modules = {}
        for name in (*self._student_modules, *also):
            modules[name] = self.student.get_submodule(name)
        shared = [] if self.auxiliary_classifier is None else [self.main_classifier()]
        return module_calls(modules, shared)

    def _ask_teachers(self, inputs: Tensor, data_samples: list, at: object | None = None) -> list[dict[str, Tensor]]:
        """Run the teachers.

        Best before the student: what a teacher needs on its way is free again when the student's own maps, which wait
        for the backward pass, take memory.

        Args:
            inputs: Images (N, 3, H, W) as the student sees them.
            data_samples: Their data samples.
            at: Where a detector's student computed its losses; a teacher scores the same positions.

        Returns:
            Tap to tensor of each teacher; nothing while no term counts, when no teacher runs.
        """
        taps = set()
        for term in self.terms.values():
            # After the stop of every schedule there is nothing to ask a teacher.
            if term.current_scale():
                taps.update(term.teacher_taps)
        answers = []
        for teacher in self.teachers if taps else ():
            answers.append(teacher(inputs, data_samples, taps, at))
        return answers

    def _distill_losses(self, student: dict[str, Tensor], teachers: list[dict[str, Tensor]], data_samples: object,
                        at: object | None = None) -> dict[str, Tensor]:
        """Compute every term against each of the teachers.

        Args:
            student: Tap to tensor of the student; ``'logits'`` and ``'aux_logits'`` as their classifiers return them.
            teachers: What :meth:`_ask_teachers` returned.
            data_samples: Data samples of the images with labels, or what else :meth:`_term_loss` reads them from.
            at: As there.

        Returns:
            ``distill.loss_<name>`` to a scalar, for each term: the weighted sum over the teachers.
        """
        scales, of_student, losses = {}, {}, {}
        for name, term in self.terms.items():
            scales[name] = term.current_scale()
            of_student[name] = []
            for tap in term.student_taps:
                of_student[name].append(read_tap(student, tap, term.setting, 'student'))
            # The terms keep their order in the log, whichever of them counts.
            losses[f'{TERM_PREFIX}loss_{name}'] = None if scales[name] else term.zero(of_student[name])
        for index, (outputs, weight) in enumerate(zip(teachers, self._teacher_weights, strict=any(scales.values()))):
            class_map = self.teachers[index].class_map
            for name, term in self.terms.items():
                if not scales[name]:
                    continue
                theirs = []
                for tap in term.teacher_taps:
                    theirs.append(read_tap(outputs, tap, term.setting, 'teacher'))
                if class_map is not None and term.teacher_tap == LOGITS:
                    theirs = [class_map(two_classes(value)) for value in theirs]
                ours = of_student[name]
                if term.adapters:
                    theirs = [as_map(value) for value in theirs]
                    ours = term.adapted(index, ours, [value.shape[2:] for value in theirs])
                value = 0
                for pair in zip(ours, theirs, strict=True):
                    value = value + self._term_loss(term, *pair, data_samples, at)
                value, before = scales[name] * weight * value, losses[f'{TERM_PREFIX}loss_{name}']
                losses[f'{TERM_PREFIX}loss_{name}'] = value if before is None else before + value
        return losses

    def train_only_state(self) -> dict[str, Tensor]:
        """State dict of what exists only for training: auxiliary classifier, adapters, averages of the student."""
        state = dict(self.distill.state_dict())
        for index, teacher in enumerate(self.ema_teachers):
            state |= {f'{_EMA_TEACHER}.{index}.{name}': value for name, value in teacher.state_dict().items()}
        return state

    def load_train_only_state(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`train_only_state` returned; all keys must fit."""
        averages = {name: value for name, value in state.items() if name.startswith(f'{_EMA_TEACHER}.')}
        self.load_averages(averages)
        self.distill.load_state_dict({name: value for name, value in state.items() if name not in averages})

    def load_averages(self, state: dict[str, Tensor]) -> None:
        """Restore the averages of the student, as :meth:`train_only_state` names them."""
        for index, teacher in enumerate(self.ema_teachers):
            prefix = f'{_EMA_TEACHER}.{index}.'
            teacher.load_state_dict(
                {name[len(prefix):]: value for name, value in state.items() if name.startswith(prefix)})

    def _apply(self, fn, *args, **kwargs):
        if self._owner != id(self) and any(teacher.would_change(fn) for teacher in self.teachers):
            self.teachers, self._owner = tuple(teacher.own_copy() for teacher in self.teachers), id(self)
        if self._owner == id(self):
            for teacher in self.teachers:
                teacher.apply_fn(fn)
        return super()._apply(fn, *args, **kwargs)


def as_step_loss(total: Tensor, losses: dict[str, Tensor]) -> StepLoss:
    """A total that knows what it is the sum of: what has "loss" in its name in ``losses``, but for the sum itself."""
    total = total.as_subclass(StepLoss)
    parts, total.terms = [0, 0], {}
    for name, value in losses.items():
        if 'loss' in name and name != 'loss':
            part = name.startswith(TERM_PREFIX)
            parts[part] = parts[part] + value
            total.terms[name] = value.detach()
    total.objectives = Objectives(*parts)
    return total


class Distilled(Distilling):
    """Mixin that makes an OpenMMLab model its own distilled form; put it before the model's class.

    The model keeps its parameter names and behaviour. All that exists only for training lies under the one child
    ``distill``, which trains like any module but is absent from ``state_dict``; a Runner's checkpoint has it elsewhere
    (see :mod:`~.runner_state`).
    """

    #: Registry scope of the library that the student is from.
    scope: ClassVar[str]
    #: Name of the child that makes the logits in models of that library.
    head_name: ClassVar[str]
    #: Dimensions of a teacher's logits: 4, maps (N, C, h, w), or 2, vectors (N, C); None: neither.
    logit_dims: ClassVar[int | None] = None
    #: A weak reference to the FSDP wrapper that holds the model in parts; None: the model is whole.
    sharded_in = None
    #: Whether weights were loaded, as they are when a run is resumed.
    has_loaded = False
    #: Whether a teacher's logits may come from a cache.
    reads_cache: bool = False

    def _init_distillation(self, teacher: dict | list[dict], distill: dict, dual_head: dict | None,
                           ignore_index: int | None) -> None:
        """Build teacher, terms and auxiliary classifier and check that they fit the student.

        Raises:
            ValueError: a setting does not fit; the message names it.
        """
        each = teacher if isinstance(teacher, (list, tuple)) else [teacher]
        if not self.reads_cache and any(isinstance(one, dict) and one.get('cache') is not None for one in each):
            raise ValueError('`teacher.cache`: a cache holds the logits of a segmentor; the teacher of another model '
                             'runs beside it: give `config` and `checkpoint` instead.')
        terms = build_terms(distill, ignore_index, self.weights, self.dense)
        host = Host(self, self.scope, self.teacher_logits, self.head_name, self.logit_dims)
        self._start_distilling(terms, *build_teachers(teacher, host), dual_head)
        self.register_state_dict_post_hook(_drop_train_only)
        self.register_load_state_dict_post_hook(_forgive_train_only)

    @property
    def student(self) -> nn.Module:
        """The model itself."""
        return self

    def check_class_names(self, names: Sequence[str] | None) -> None:
        """Map the classes of teachers whose logits are read to these of the student's data set by their names, tell
        the names to the maps that there are, and refuse teachers that know others.

        Raises:
            ValueError: as :func:`~check_names`, or a class map names a class that the student has not.
        """
        if any(term.reads_logits for term in self.terms.values()):
            for teacher in self.teachers:
                if teacher.class_map is None and self.maps_classes:
                    found = match_names(names, teacher.classes)
                    if found is not None:
                        teacher.class_map = ClassMap(found, teacher.classes, teacher.num_classes, len(names))
                if teacher.class_map is not None:
                    teacher.class_map.tell_names(names)
                else:
                    check_names(names, teacher.classes)

    def forward(self, inputs, data_samples=None, mode: str = 'tensor', **kwargs):
        """The student's; in training with several processes the distillation terms are means over all their positions.

        The student's own losses stay the library's, which divide by what one process holds.
        """
        if mode == 'loss' and self.training and torch.is_grad_enabled():
            begin_step(self)
        with batch_of_all_processes() if mode == 'loss' else nullcontext():
            return super().forward(inputs, data_samples, mode=mode, **kwargs)

    def parse_losses(self, losses: dict) -> tuple[StepLoss, OrderedDict]:
        """Sum the losses as the library does, and keep the two objectives apart for those who ask.

        Returns:
            The total, which knows what it is the sum of, and what is logged. The logged values are detached: the
            training loop keeps them into the next iteration, and with them it would keep a graph that gradient
            alignment, which goes backward twice, has not freed.
        """
        total, log_vars = super().parse_losses(losses)
        total = as_step_loss(total, log_vars)
        for name, value in log_vars.items():
            log_vars[name] = value.detach()
        return total, log_vars

    def init_weights(self) -> None:
        """Initialise the student as if nothing else were there; what trains beside it has its weights already."""
        distill = self._modules.pop(_TRAIN_ONLY)
        try:
            super().init_weights()
        finally:
            self._modules[_TRAIN_ONLY] = distill


def _drop_train_only(module, state_dict, prefix, local_metadata):
    for key in [key for key in state_dict if key.startswith(f'{prefix}{_TRAIN_ONLY}.')]:
        del state_dict[key]


def _forgive_train_only(module, incompatible_keys):
    module.has_loaded = True
    missing = incompatible_keys.missing_keys
    # A prefix stands before the name where the model is part of another (an EMA copy).
    missing[:] = [key for key in missing if _TRAIN_ONLY not in key.split('.')[:-1]]


def batch_of_all_processes() -> AbstractContextManager:
    """Around the losses of a training step: their means are those of the batch of all processes.

    Without gradient (a loss computed for its value, perhaps by one process only) nothing is exchanged.
    """
    return joined_batch(_combine, get_world_size()) if are_joined() else nullcontext()


def are_joined() -> bool:
    """Whether this is a training step of several processes, which average their gradients."""
    return get_world_size() > 1 and torch.is_grad_enabled()


def share_of_all(number: int, device: torch.device) -> Tensor | None:
    """Factor on a mean over ``number`` pictures here, so that the average over the processes is the mean over all.

    It is 1 where each process has as many; None without several processes. All of them must call it.
    """
    if not are_joined():
        return None
    total = _combine(torch.tensor(float(number), device=device), 'sum')
    return number * get_world_size() / total.clamp(min=1)


def _combine(value: Tensor, op: str) -> Tensor:
    value = value.clone()
    all_reduce(value, op=op)
    return value
