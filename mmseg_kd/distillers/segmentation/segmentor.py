"""Distilled segmentors: mmseg's, with a teacher."""
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from mmengine.structures import PixelData
from mmseg.models import CascadeEncoderDecoder, EncoderDecoder
from mmseg.models.decode_heads.cascade_decode_head import BaseCascadeDecodeHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.utils import add_prefix
from torch import Tensor, nn

from mmseg_kd.functional import Upsampled
from mmseg_kd.registry import MODELS
from mmseg_kd.taps import AUX_LOGITS, AUXILIARY_HEAD, LOGITS, is_auxiliary_head
from mmseg_kd.teachers import Teacher

from ..base import Distilled, are_joined, share_of_all
from ..compare import NO_GAPS, WEIGHTS, Gaps, compare_maps
from ..terms import DistillTerm
from .heads import as_logits, auxiliary_answers, auxiliary_head, main_classifier, main_logits
from .prediction import Prediction, predict_of_teacher
from .supervised import rows_of, tensors_in, upsample_in_head

__all__ = ['DistilledCascadeEncoderDecoder', 'DistilledEncoderDecoder']


class Labels(NamedTuple):
    """The labels of a batch."""

    samples: list  #: the data samples, each with a label map; one that had none has one of the ignored label
    target: Tensor  #: (N, H, W) int64, whatever stands in the gaps
    rows: list[int]  #: places in the batch of the pictures with labels
    gaps: Gaps  #: pictures without labels, and what mmseg padded

    @property
    def labelled(self) -> list:
        """The data samples of the pictures with labels."""
        return [self.samples[row] for row in self.rows]


class DistilledSegmentor(Distilled):
    """What distilled segmentors share: dense logits against a label map."""

    scope = 'mmseg'
    head_name = 'decode_head'
    logit_dims = 4
    reads_cache = True
    weights = WEIGHTS
    dense = True

    def __init__(self, *args, teacher: dict | list[dict], distill: dict, dual_head: dict | None = None,
                 upsample_in_loss: bool = False, **kwargs):
        super().__init__(*args, **kwargs)
        self._init_distillation(teacher, distill, dual_head, self.last_head.ignore_index)
        self._upsample_in_heads(upsample_in_loss)

    @staticmethod
    def teacher_logits(model: nn.Module, inputs: Tensor,
                       heads: Collection[str] = ()) -> Tensor | Upsampled | dict[str, Tensor | Upsampled]:
        """Class logits (N, C, H, W) of a segmentor in eval mode, at the size of its input (N, 3, H, W).

        Where mmseg would only resize the head's own small map, that is left to the losses. Of a segmentor that
        classifies masks, the logarithm of its scores (see :func:`~.heads.as_logits`).

        Args:
            model: The segmentor.
            inputs: Images.
            heads: Taps of auxiliary heads that are asked as well; then the answers are given by tap.
        """
        size = tuple(inputs.shape[2:])
        # Whether the prediction is the head's map, resized.
        resizes = type(model).encode_decode is EncoderDecoder.encode_decode and (
            isinstance(model.decode_head, BaseDecodeHead)
            and type(model.decode_head).predict is BaseDecodeHead.predict
            and type(model.decode_head).predict_by_feat is BaseDecodeHead.predict_by_feat)
        maps = model.extract_feat(inputs) if resizes or heads else None
        if heads:
            answers = auxiliary_answers(model, heads, lambda head: Upsampled(
                main_logits(head, head.forward(maps)), size, head.align_corners))
        logits = model.decode_head.forward(maps) if resizes else None
        if isinstance(logits, Tensor):
            logits = Upsampled(logits, size, model.align_corners)
        else:
            metas = [dict(img_shape=size, pad_shape=size, ori_shape=size)] * len(inputs)
            logits = as_logits(model.decode_head, model.encode_decode(inputs, metas))
        return {**answers, LOGITS: logits} if heads else logits

    @property
    def last_head(self) -> nn.Module:
        """The decode head whose logits are the prediction."""
        return self.decode_head

    @property
    def has_dense_logits(self) -> bool:
        """Whether a training step makes a map of class logits."""
        return _is_dense(self.last_head)

    def main_classifier(self) -> nn.Module:
        """``conv_seg`` of the last head; see :func:`~.heads.main_classifier`."""
        return main_classifier(self.last_head)

    def teacher_predictions(self, teacher: Teacher, data: dict) -> list[Prediction]:
        """What one of the teachers says about a batch of the data loader, as mmseg's evaluation would see it."""
        return predict_of_teacher(teacher, self.data_preprocessor, data)

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Losses of the student and of every distillation term.

        The student's own losses are those of the pictures with labels, as if there were no others in the batch; but it
        runs once, on all, so that batch statistics are of all.

        Args:
            inputs: Images (N, 3, H, W).
            data_samples: Their data samples with ``gt_sem_seg``; those without it, or with ``unlabelled=True`` in their
                metainfo, have no labels.
        """
        labels = read_labels(data_samples, inputs.shape[2:], self.last_head.ignore_index)
        if len(labels.rows) < len(labels.samples):
            self._check_somebody_sees()
        teachers = self._ask_teachers(inputs, labels.samples, self._teachers_heads)
        with self._student_calls() as calls:
            maps = self.extract_feat(inputs)
            losses, logits = self._decode_head_losses(maps, labels)
            if self.with_auxiliary_head and (labels.rows or are_joined() or self._reads_auxiliary_heads):
                auxiliary, calls.outputs[AUXILIARY_HEAD] = self._auxiliary_losses(maps, labels)
                losses.update(auxiliary)
        if logits is not None:
            calls.outputs[LOGITS] = logits
        second = self.auxiliary_classifier
        if second is not None:
            calls.outputs[AUX_LOGITS] = second(calls.arguments[0][-1].first)
        if are_joined():
            # The student's own losses are means over the labelled pictures here, and will be averaged over processes.
            factor = share_of_all(len(labels.rows), inputs.device)
            losses = {name: value * factor if 'loss' in name else value for name, value in losses.items()}
        losses.update(self._distill_losses(calls.outputs, teachers, labels))
        return losses

    def _start_distilling(self, terms: nn.ModuleDict, *args) -> None:
        super()._start_distilling(terms, *args)
        of_student, of_teachers = ({tap for term in terms.values() for tap in getattr(term, taps)
                                    if is_auxiliary_head(tap)} for taps in ('student_taps', 'teacher_taps'))
        self._reads_auxiliary_heads = bool(of_student)
        # Only those auxiliary heads of a teacher run that a term reads; None: none.
        self._teachers_heads = tuple(sorted(of_teachers)) or None

    def _check_somebody_sees(self) -> None:
        if all(term.positions == 'labelled' for term in self.terms.values()):
            raise ValueError('`distill`: the batch has pictures without labels, and no term sees them. Give the terms '
                             "that shall learn from them positions='all' (or 'unlabelled'), for instance "
                             f"--cfg-options model.distill.{next(iter(self.terms))}.positions=all")

    def _auxiliary_losses(self, maps: Sequence[Tensor], labels: Labels) -> tuple[dict[str, Tensor], object]:
        """Losses of the auxiliary heads, and their logits: a map, or one for each of several; None of heads without."""
        heads = self.auxiliary_head
        is_one = not isinstance(heads, nn.ModuleList)
        losses, logits = {}, []
        for name, head in [('aux', heads)] if is_one else [(f'aux_{index}', head) for index, head in enumerate(heads)]:
            stage, of_head = _head_losses(head, labels, self.train_cfg, maps)
            losses.update(add_prefix(stage, name))
            logits.append(of_head)
        return losses, logits[0] if is_one else tuple(logits)

    def _upsample_in_heads(self, wanted: bool) -> None:
        if not isinstance(wanted, bool):
            raise ValueError(f'`upsample_in_loss`: expected True or False, got {wanted!r}.')
        for setting in ('decode_head', 'auxiliary_head') if wanted else ():
            heads = getattr(self, setting, None)
            for head in heads if isinstance(heads, nn.ModuleList) else [heads] if heads is not None else ():
                upsample_in_head(head, setting)

    def _check_classes(self, terms: nn.ModuleDict) -> None:
        for term in terms.values():
            if term.student_tap == LOGITS and not self.has_dense_logits:
                raise ValueError(
                    f'`{term.setting}`: {type(self.last_head).__name__} computes its losses without a dense map of '
                    'class logits that could be compared; name a module instead, for instance one of the backbone.')
            if not term.reads_logits:
                continue
            own = self._number_of_classes(term, term.student_tap, self, self.out_channels)
            for teacher in self.teachers:
                number = self._number_of_classes(term, term.teacher_tap, teacher.model, teacher.num_classes)
                # A single sigmoid channel has two classes.
                same = number == own or {number, own} == {1, 2}
                mapped = teacher.class_map is not None and term.teacher_tap == LOGITS
                if teacher.no_logits or same or mapped:
                    continue
                names = teacher.classes
                raise ValueError(
                    f'`{teacher.setting}`: `{term.setting}` compares logits, so student and teacher must know the same '
                    f'classes; the student has {own}, the teacher {number}'
                    f'{f" ({list(names)})" if names else ""}. Take a teacher of the same data set, set '
                    '`decode_head.num_classes` of one of them, or say by `teacher.class_map` which classes are which.')

    @staticmethod
    def _number_of_classes(term: DistillTerm, tap: str, model: nn.Module, of_main_head: int | None) -> int | None:
        """Classes of the logits at a tap."""
        if not isinstance(tap, str) or not is_auxiliary_head(tap):
            return of_main_head
        return auxiliary_head(model, tap, term.setting).out_channels

    def _term_loss(self, term: DistillTerm, student: Tensor, teacher: Tensor, labels: Labels, at: object) -> Tensor:
        for maps, taps in ((student, term.student_taps), (teacher, term.teacher_taps)):
            if len(maps.shape) != 4:
                raise ValueError(f'`{term.setting}`: expected maps (N, C, h, w) at {list(taps)}, got the shape '
                                 f'{tuple(maps.shape)}. Name modules that return maps; those of a transformer are '
                                 "among its backbone's outputs, like 'backbone[2]'.")
        # Logits are compared where the labels are, unless the term says otherwise; features where the student's are.
        at_student = term.student_features or term.size == 'head'
        size = tuple(student.shape[2:] if at_student else labels.target.shape[1:])
        return compare_maps(term, student, teacher, labels.target, size, self.out_channels, self.align_corners,
                            labels.gaps)


def read_labels(data_samples: Sequence, size: Sequence[int], ignore_index: int) -> Labels:
    """Read the labels of a batch.

    Args:
        data_samples: Those without ``gt_sem_seg``, or with ``unlabelled=True`` in their metainfo, have no labels.
        size: (H, W) of the label map that a picture without one gets.
        ignore_index: What that map is made of.
    """
    samples, maps, rows, without, padding = [], [], [], [], []
    for row, sample in enumerate(data_samples):
        if 'gt_sem_seg' not in sample:
            sample = sample.new()
            sample.gt_sem_seg = PixelData(data=torch.full((1, *size), ignore_index))
            sample.set_metainfo(dict(unlabelled=True))
        samples.append(sample)
        maps.append(sample.gt_sem_seg.data)
        (without if sample.metainfo.get('unlabelled', False) else rows).append(row)
        _, right, _, bottom = sample.metainfo.get('padding_size') or (0, 0, 0, 0)
        if right or bottom:
            padding.append((row, right, bottom))
    gaps = Gaps(tuple(without), tuple(padding)) if without or padding else NO_GAPS
    return Labels(samples, torch.stack(maps).squeeze(1), rows, gaps)


def _is_dense(head: nn.Module) -> bool:
    """Whether the head's losses are those of the maps that its ``forward`` returns; query heads have their own way."""
    own = type(head).loss
    return own is BaseDecodeHead.loss or own is BaseCascadeDecodeHead.loss


def _head_losses(head: nn.Module, labels: Labels, train_cfg: dict, *inputs) -> tuple[dict[str, Tensor], Tensor | None]:
    """Losses of a head for the pictures with labels, and the main logits of a dense one: mmseg's ``head.loss`` with its
    logits not thrown away.

    Where no picture here has labels and other processes have some, a 0 keeps the parameters in the graph, which DDP
    needs.
    """
    if not _is_dense(head):
        if not labels.rows:
            return {}, None
        return head.loss(*rows_of(inputs, labels.rows, len(labels.samples)), labels.labelled, train_cfg), None
    outputs = head.forward(*inputs)
    losses = {}
    if len(labels.rows) == len(labels.samples):
        losses = head.loss_by_feat(outputs, labels.samples)
    elif labels.rows:
        losses = head.loss_by_feat(rows_of(outputs, labels.rows, len(labels.samples)), labels.labelled)
    elif are_joined():
        losses = dict(loss_without_labels=sum(0. * each.sum() for each in tensors_in(outputs)))
    return losses, outputs if isinstance(outputs, Tensor) else main_logits(head, outputs)


@MODELS.register_module()
class DistilledEncoderDecoder(DistilledSegmentor, EncoderDecoder):
    """mmseg's ``EncoderDecoder``, distilled from a teacher while it trains.

    It *is* its student: same parameter names, checkpoints, inference. A training step runs the student once and the
    teacher once and adds one loss per distillation term to the student's own.

    Args:
        teacher: ``dict(config=..., checkpoint=...)``. ``config`` is a path, a ``'mmseg::...'`` name, a dict or a
            Config; ``checkpoint`` a file or URL (absent: random weights, with a warning). Optional, for speed:
            ``dtype`` ('bf16', 'fp16'), ``channels_last=True``, ``compile=True`` (or arguments of ``torch.compile``).
            ``dict(type='ema', momentum=0.001, warmup=True)`` is the student's own average (see
            :class:`~EmaTeacher`). A list of such dicts, each perhaps with a ``weight``, are several
            teachers: every term is computed against each, weighted (see :func:`~build_teachers`).
        distill: ``dict(<name>=dict(loss=dict(type='mmseg_kd.DKDLoss', ...), on='logits', adapter=None,
            schedule=None))``; ``on`` is ``'logits'``, ``'aux_logits'``, ``'auxiliary_head'`` (its logits; of several
            ``'auxiliary_head[1]'``), a module's name (``'backbone.layer4'``, or
            ``'backbone[3]'`` for one of several outputs), a (student, teacher) pair of those, or a pair of lists of
            modules' names, whose losses are added; ``adapter`` is ``dict(kind='linear')`` or ``dict(kind='review')``
            (see :mod:`~.adapters`); ``schedule`` is ``dict(warmup=..., stop=..., by_epoch=False)`` (see
            :class:`~.schedule.Schedule`).
        dual_head: ``dict(kind='linear'|'nonlinear')`` trains a second classifier on the input of ``conv_seg``; terms
            with ``on='aux_logits'`` read it, and the main classifier sees only the supervised loss (DHKD). It exists
            only while training: no output, key or parameter of the trained student knows of it.
        upsample_in_loss: Compute the student's own cross-entropy from its small logits as well, so that a training
            step makes no full-size map of logits. Equal to mmseg's up to rounding.
        **kwargs: Arguments of ``EncoderDecoder``.

    Raises:
        ValueError: teacher, checkpoint, dual head or a term does not fit; the message names the setting and the way
            out.
    """

    def _decode_head_losses(self, maps, labels: Labels) -> tuple[dict[str, Tensor], Tensor | None]:
        losses, logits = _head_losses(self.decode_head, labels, self.train_cfg, maps)
        return add_prefix(losses, 'decode'), logits


@MODELS.register_module()
class DistilledCascadeEncoderDecoder(DistilledSegmentor, CascadeEncoderDecoder):
    """mmseg's ``CascadeEncoderDecoder``, distilled from a teacher while it trains.

    Logits and features are the last stage's. PointRend's last stage has no map of logits, only sampled points: there
    the logits are those that it refines, and a dual head is refused.

    Args:
        teacher: See :class:`DistilledEncoderDecoder`, as for ``distill``, ``dual_head`` and ``upsample_in_loss``.
        **kwargs: Arguments of ``CascadeEncoderDecoder``.

    Raises:
        ValueError: teacher, checkpoint, dual head or a term does not fit; the message names the setting and the way
            out.
    """

    @property
    def last_head(self) -> nn.Module:
        """The head of the last stage."""
        return self.decode_head[-1]

    @property
    def has_dense_logits(self) -> bool:
        """True: the first stage of every cascade is dense."""
        return True

    def _decode_head_losses(self, maps, labels: Labels) -> tuple[dict[str, Tensor], Tensor]:
        first = self.decode_head[0]
        stage, logits = _head_losses(first, labels, self.train_cfg, maps)
        losses, previous = add_prefix(stage, 'decode_0'), None
        for index in range(1, self.num_stages):
            # mmseg runs the stage before once more (dropout and batch statistics move); so do we, to train as it does.
            previous = first.forward(maps) if index == 1 else self.decode_head[index - 1].forward(maps, previous)
            head = self.decode_head[index]
            stage, logits = _head_losses(head, labels, self.train_cfg, maps, previous)
            # PointRend refines the map of the stage before.
            logits = previous if logits is None else logits
            losses.update(add_prefix(stage, f'decode_{index}'))
        return losses, logits
