"""Distillation outside OpenMMLab: a student and a teacher that are plain ``nn.Module``s, in a loop of one's own."""
import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmseg_kd.functional import Upsampled
from mmseg_kd.functional.cross_entropy import cross_entropy_sum
from mmseg_kd.functional.merged_classes import MergedClasses
from mmseg_kd.step_loss import StepLoss
from mmseg_kd.taps import AUX_LOGITS, LOGITS
from mmseg_kd.teachers import Host, build_teachers
from mmseg_kd.teachers.network import read_image_format
from mmseg_kd.teachers.own_network import Inputs, call_network, logits_in, read_logits

from .base import Distilling, as_step_loss, batch_of_all_processes
from .compare import WEIGHTS, compare_maps, compare_vectors
from .terms import DistillTerm, build_terms

__all__ = ['Distiller']

_SUPERVISED = 'loss_supervised'
_EMA_TEACHER = 'ema_teacher.'


class _Batch(NamedTuple):
    """What a term must know of the batch beside the outputs of the networks."""

    labels: Tensor | None
    image_size: tuple[int, int] | None  #: of images (N, C, H, W)
    classes: int | None  #: of the student's logits; None: nothing reads them


class Distiller(Distilling, nn.Module):
    r"""A student and its teachers, both any ``nn.Module``, and the terms that compare them.

    It trains like any module: its parameters are the student's and, under ``distill``, those of adapters and of the
    second classifier. ``distiller.student.state_dict()`` is the plain student's; ``distiller.state_dict()`` holds all
    that a resumed run needs, averages of the student included, and no frozen teacher.

    Logits are (N, C) with labels (N,), or maps (N, C, h, w) with labels (N, H, W). Maps of logits are compared at the
    size of the labels (or, with a term's ``size='head'``, at that of the student's), features at the student's size.

    Args:
        student: The network that is trained.
        teacher: A frozen network that is called with the student's inputs; or a dict, as ``teacher`` of a config:
            ``dict(network=..., output=...)``, ``dict(type='module', build=..., mean=..., std=...)``,
            ``dict(type='ema')`` and the others (see :func:`~mmseg_kd.teachers.build_teacher`); or a list of those,
            whose dicts may have a ``weight``. The networks are put into eval mode and take no gradient.
        terms: Name to term, as ``distill`` of a config: ``dict(dkd=dict(loss=dict(type='mmseg_kd.DKDLoss', beta=2.),
            on='logits'))``. A loss may be a module as well, and stand for a term that has nothing else:
            ``dict(dkd=DKDLoss(beta=2.))``.
        output: Where the logits are in what the student returns: a key, an index, or names joined by dots (see
            :func:`~mmseg_kd.teachers.network.pick`). None: it returns them, or an object or dict with ``logits`` (as
            Hugging Face's) or ``out`` (as torchvision's).
        supervised: The student's own loss, called as ``supervised(returned, labels)`` with what the student returned;
            ``'cross_entropy'``: the mean cross-entropy of the logits; None: there is none.
        ignore_index: Label of positions that have none. Losses that are given as modules get it too.
        dual_head: ``dict(kind='linear'|'nonlinear')`` trains a second classifier on the input of ``classifier``; terms
            with ``on='aux_logits'`` read it.
        classifier: Name of the student's layer that gives its logits, a linear layer or a convolution.
        images: How the inputs were normalised, ``dict(mean=..., std=..., scale=255., rgb=True)`` as for
            ``type='module'``; needed where a teacher has a normalisation of its own.
        align_corners: How maps are resized.

    Raises:
        ValueError: a setting does not fit; the message names it and the way out.

    Example:
        >>> import torch
        >>> from mmseg_kd.losses import DKDLoss
        >>> student, teacher = torch.nn.Linear(8, 3), torch.nn.Linear(8, 3)
        >>> distiller = Distiller(student, teacher, dict(dkd=DKDLoss(beta=2.)))
        >>> loss, parts = distiller(torch.randn(4, 8), torch.tensor([0, 1, 2, 0]))
        >>> loss.backward()
        >>> sorted(parts)
        ['distill.loss_dkd', 'loss_supervised']
    """

    def __init__(self, student: nn.Module, teacher: nn.Module | dict | Sequence[nn.Module | dict],
                 terms: Mapping[str, dict | nn.Module], *, output: str | int | None = None,
                 supervised: str | Callable[[object, object], Tensor] | None = 'cross_entropy',
                 ignore_index: int = -100, dual_head: dict | None = None, classifier: str | None = None,
                 images: dict | None = None, align_corners: bool = False):
        super().__init__()
        if not isinstance(student, nn.Module):
            raise ValueError(f'`student`: expected an nn.Module, got a {type(student).__name__}. A model that a config '
                             "describes is trained with model.type='mmseg_kd.Distilled...' and tools/train.py.")
        if supervised is not None and supervised != 'cross_entropy' and not callable(supervised):
            raise ValueError("`supervised`: expected 'cross_entropy', a callable (returned, labels) -> loss, or None, "
                             f'got {supervised!r}.')
        if isinstance(ignore_index, bool) or not isinstance(ignore_index, int):
            raise ValueError(f'`ignore_index`: expected a whole number, got {ignore_index!r}. Where every label '
                             'counts, leave it at -100, which is not a class.')
        self.student = student
        self.output = output
        self.supervised = supervised
        self.ignore_index = ignore_index
        self.classifier = classifier
        self.align_corners = align_corners
        self.teacher_logits = functools.partial(read_logits, output=output, setting='output')
        terms = {name: dict(loss=each) if isinstance(each, nn.Module) else each for name, each in dict(terms).items()}
        built = build_terms(terms, ignore_index, WEIGHTS, dense=True)
        host = Host(student, 'mmseg', self.teacher_logits,
                    images=None if images is None else read_image_format(images, setting='images'))
        self._start_distilling(built, *build_teachers(teacher, host), dual_head)
        self._seen: int | None = None
        self.register_state_dict_post_hook(_add_averages)
        self.register_load_state_dict_pre_hook(_take_averages)

    def main_classifier(self) -> nn.Module:
        """The student's layer that ``classifier`` names.

        Raises:
            ValueError: there is none, or it is neither a linear layer nor a convolution.
        """
        names = [name for name, each in self.student.named_modules() if isinstance(each, (nn.Linear, nn.Conv2d))]
        if self.classifier not in names:
            raise ValueError('`classifier`: a dual head needs the name of the linear layer or convolution that gives '
                             f"the student's logits, got {self.classifier!r}; the last ones of the student are "
                             f'{names[-3:]}.')
        return self.student.get_submodule(self.classifier)

    def set_time(self, step: int, epoch: int | None = None) -> None:
        """Tell the schedules what time it is, before a training step.

        Args:
            step: Steps of the optimizer so far.
            epoch: Epochs so far; needed by schedules with ``by_epoch=True``.

        Raises:
            ValueError: a schedule counts epochs and ``epoch`` is not given.
        """
        for term in self.terms.values():
            if term.schedule is None:
                continue
            if term.schedule.by_epoch and epoch is None:
                raise ValueError(f'`terms.{term.name}.schedule`: by_epoch=True counts epochs; call '
                                 'distiller.set_time(step, epoch).')
            term.scale = term.schedule.factor(epoch if term.schedule.by_epoch else step)

    def update_averages(self) -> None:
        """Take the student's weights into the teachers of ``type='ema'``; call it after each step of the optimizer."""
        for teacher in self.ema_teachers:
            teacher.update(self.student)
        self._seen = None

    def forward(self, inputs: Inputs, labels: object = None) -> tuple[StepLoss, dict[str, Tensor]]:
        """Run teachers and student once and compute all losses.

        Args:
            inputs: What both networks are called with: a tensor, a dict of named arguments, or a tuple of arguments.
            labels: int64 classes, (N,) or (N, H, W), or whatever ``supervised`` takes; None: the batch has no labels,
                and only the terms count, at all positions. A loss that needs a target then takes the teacher's first
                class. Where only a part of a batch has labels, the others are ``ignore_index``, and a term's
                ``positions='all'`` lets it see them.

        Returns:
            The total, and its parts without gradient: ``loss_supervised`` and ``distill.loss_<term>`` to a scalar.

        Raises:
            ValueError: there is nothing to learn from, or an output does not fit.
        """
        self._check_time()
        with batch_of_all_processes():
            teachers = self._ask_teachers(inputs, ())
            with self._student_calls() as calls:
                returned = call_network(self.student, inputs)
            image_size = tuple(inputs.shape[2:]) if isinstance(inputs, Tensor) and inputs.dim() == 4 else None
            logits = None
            if any(term.reads_logits for term in self.terms.values()) or self.supervised == 'cross_entropy':
                logits = calls.outputs[LOGITS] = logits_in(returned, self.output)
            second = self.auxiliary_classifier
            if second is not None:
                calls.outputs[AUX_LOGITS] = second(calls.arguments[0][-1].first)
            losses = OrderedDict()
            if labels is not None and self.supervised is not None:
                losses[_SUPERVISED] = (self._cross_entropy(logits, labels) if self.supervised == 'cross_entropy' else
                                       self.supervised(returned, labels))
            batch = _Batch(labels, image_size, None if logits is None else logits.shape[1])
            losses.update(self._distill_losses(calls.outputs, teachers, batch))
        total = as_step_loss(sum(losses.values()), losses)
        return total, total.terms

    def _check_time(self) -> None:
        """Start the averages before the first step, and refuse to go on with averages that nobody updates."""
        if not self.ema_teachers or not torch.is_grad_enabled():
            return
        for teacher in self.ema_teachers:
            if teacher.steps is None:
                teacher.start(self.student)
        version = sum(parameter._version for parameter in self.student.parameters())
        if self._seen is not None and self._seen != version:
            raise ValueError("`teacher`: the student's weights changed and nothing averages them for type='ema'. Call "
                             'distiller.update_averages() after each optimizer.step().')
        self._seen = version

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        if logits.dim() == 4 and logits.shape[2:] != labels.shape[1:]:
            logits = Upsampled(logits, tuple(labels.shape[1:]), self.align_corners)
        total, _ = cross_entropy_sum(logits, labels, ignore_index=self.ignore_index)
        return total / (labels != self.ignore_index).sum().clamp(min=1)

    def _check_classes(self, terms: nn.ModuleDict) -> None:
        if _SUPERVISED in terms:
            raise ValueError(f'`terms`: {_SUPERVISED!r} is the name of the supervised loss; choose another.')

    def _term_loss(self, term: DistillTerm, student: Tensor | Upsampled, teacher: Tensor | Upsampled | MergedClasses,
                   batch: _Batch, at: None) -> Tensor:
        shapes = [tuple(student.shape), tuple(teacher.shape)]
        if {len(shape) for shape in shapes} not in ({2}, {4}):
            raise ValueError(f'`terms.{term.name}.on`: expected vectors (N, C) or maps (N, C, h, w) of both networks, '
                             f'got the shapes {shapes[0]} and {shapes[1]}. Name other modules, or say by `output` '
                             'where the logits are.')
        if term.reads_logits and shapes[0][1] != shapes[1][1] and not isinstance(teacher, MergedClasses):
            raise ValueError(f'`terms.{term.name}`: logits are compared class by class; the student has '
                             f'{shapes[0][1]} classes, the teacher {shapes[1][1]}.')
        labels = batch.labels if isinstance(batch.labels, Tensor) else None
        if not term.reads_logits and labels is not None and labels.dim() != len(shapes[0]) - 1:
            # Of maps of features the classes of whole images say nothing about a position.
            return compare_vectors(term, student, teacher, None)
        size = shapes[0][2:]
        if term.reads_logits and term.size == 'label':
            size = tuple(labels.shape[1:]) if labels is not None else size and (batch.image_size or size)
        return compare_maps(term, student, teacher, labels, size, batch.classes, self.align_corners)


def _add_averages(module: Distiller, state_dict: dict, prefix: str, local_metadata: dict) -> None:
    for name, value in module.train_only_state().items():
        if name.startswith(_EMA_TEACHER):
            state_dict[prefix + name] = value


def _take_averages(module: Distiller, state_dict: dict, prefix: str, local_metadata: dict, strict: bool,
                   missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str]) -> None:
    given = {name[len(prefix):]: state_dict.pop(name) for name in list(state_dict)
             if name.startswith(prefix + _EMA_TEACHER)}
    wanted = [name for name in module.train_only_state() if name.startswith(_EMA_TEACHER)]
    missing = [prefix + name for name in wanted if name not in given]
    missing_keys += missing
    unexpected_keys += [prefix + name for name in given if name not in wanted]
    if not missing:
        module.load_averages(given)
    module._seen = None
