"""Distilled image classifiers: mmpretrain's, with a teacher."""

import torch
from mmpretrain.models import ImageClassifier
from torch import Tensor, nn

from mmseg_kd.functional.merged_classes import MergedClasses
from mmseg_kd.registry import MODELS
from mmseg_kd.taps import AUX_LOGITS, LOGITS

from ..base import Distilled
from ..compare import compare_vectors
from ..terms import DistillTerm
from .heads import main_linear

__all__ = ['DistilledImageClassifier']

_HEAD = 'head'


@MODELS.register_module()
class DistilledImageClassifier(Distilled, ImageClassifier):
    """mmpretrain's ``ImageClassifier``, distilled from a teacher while it trains.

    It *is* its student: same parameter names, checkpoints, inference. A training step runs the student once and the
    teacher once and adds one loss per distillation term to the student's own. Every label counts: no class is taken
    for an ignore label.

    With mixup or cutmix the teacher sees the mixed images, and losses without a target compare the two networks on
    them. A mixed image has no target class, so losses that need one are refused.

    Args:
        teacher: ``dict(config=..., checkpoint=...)``. ``config`` is a path, a ``'mmpretrain::...'`` name, a dict or a
            Config; ``checkpoint`` a file or URL (absent: random weights, with a warning).
        distill: ``dict(<name>=dict(loss=dict(type='mmseg_kd.DKDLoss', ...), on='logits', schedule=None))``; ``on`` is
            ``'logits'``, ``'aux_logits'``, a module's name, or a (student, teacher) pair of those.
        dual_head: ``dict(kind='linear'|'nonlinear')`` trains a second classifier on the input of the head's linear
            layer; terms with ``on='aux_logits'`` read it, and the main classifier sees only the supervised loss
            (DHKD).
        **kwargs: Arguments of ``ImageClassifier``.

    Raises:
        ValueError: teacher, checkpoint, dual head or a term does not fit; the message names the setting and the way
            out.
    """

    scope = 'mmpretrain'
    head_name = _HEAD
    logit_dims = 2

    def __init__(self, *args, teacher: dict | list[dict], distill: dict, dual_head: dict | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        if not self.with_head:
            raise ValueError('`head`: a distilled classifier needs one, its logits are what is compared; got None.')
        self._init_distillation(teacher, distill, dual_head, ignore_index=None)

    @staticmethod
    def teacher_logits(model: nn.Module, inputs: Tensor) -> Tensor:
        """Class logits (N, C) that a classifier in eval mode gives for images (N, 3, H, W)."""
        return _checked_logits(model(inputs, mode='tensor'), model, '`teacher.config`')

    def main_classifier(self) -> nn.Linear:
        """The head's linear layer; see :func:`~.heads.main_linear`."""
        return main_linear(self.head)

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Losses of the student (the head's ``loss`` becomes ``loss_cls``) and of every distillation term.

        Args:
            inputs: Images (N, 3, H, W).
            data_samples: Their data samples with ``gt_label`` (a class) or ``gt_score`` (C,).
        """
        teachers = self._ask_teachers(inputs, data_samples)
        with self._student_calls(also=(_HEAD, )) as calls:
            losses = super().loss(inputs, data_samples)
        # mmengine logs the sum under 'loss', the name that mmpretrain's heads give to their part of it.
        losses = {'loss_cls' if name == 'loss' else name: value for name, value in losses.items()}
        if any(term.student_tap == LOGITS for term in self.terms.values()):
            calls.outputs[LOGITS] = _checked_logits(calls.outputs.get(_HEAD), self, '`head`')
        second = self.auxiliary_classifier
        if second is not None:
            calls.outputs[AUX_LOGITS] = second(calls.arguments[0][-1].first)
        losses.update(self._distill_losses(calls.outputs, teachers, data_samples))
        return losses

    def _check_classes(self, terms: nn.ModuleDict) -> None:
        own = getattr(self.head, 'num_classes', None)
        others = {teacher.num_classes for teacher in self.teachers if teacher.class_map is None} - {own, None}
        for term in terms.values():
            if term.reads_logits and own is not None and others:
                raise ValueError(
                    f'`teacher.config`: `{term.setting}` compares logits, so student and teacher must know the same '
                    f'classes; the student has {own}, the teacher {others.pop()}. Take a teacher of the same data set, '
                    'or set `head.num_classes` of one of them.')
            ignored = getattr(term.loss, 'ignore_index', None)
            if own is not None and ignored is not None and 0 <= ignored < own:
                raise ValueError(
                    f'`distill.{term.name}.loss.ignore_index`: {ignored} is one of the {own} classes, whose images '
                    'would be left out; remove the setting (in a classifier every label counts).')
            if getattr(term.loss, 'needs_target', False) and getattr(self.data_preprocessor, 'batch_augments', None):
                raise ValueError(
                    f'`distill.{term.name}.loss`: {type(term.loss).__name__} needs the class of each image, which '
                    'mixup and cutmix (`train_cfg.augments`, `data_preprocessor.batch_augments`) take away; remove '
                    'them, or use a loss that needs no target (KDLoss, GDKDLoss, GDKD3Loss, BinaryKLLoss, '
                    'BinaryKLNormLoss).')

    def _term_loss(self, term: DistillTerm, student: Tensor, teacher: Tensor, data_samples: list, at: None) -> Tensor:
        needs_target = getattr(term.loss, 'needs_target', False)
        # Images of a class that the teacher lacks are left out, where each image has one class.
        wanted = needs_target or isinstance(teacher, MergedClasses) and not _are_soft(data_samples)
        target = _classes(data_samples, f'`distill.{term.name}.loss`') if wanted else None
        return compare_vectors(term, student, teacher, target)


def _classes(data_samples: list, setting: str) -> Tensor:
    """Class of each image, (N,) int64.

    Raises:
        ValueError: an image has a soft label or several classes.
    """
    if _are_soft(data_samples):
        raise ValueError(f'{setting}: it needs the class of each image, `gt_label`, and got soft labels, several or '
                         'none; use a loss that needs no target (KDLoss, GDKDLoss, GDKD3Loss, BinaryKLLoss, '
                         'BinaryKLNormLoss).')
    return torch.cat([sample.gt_label for sample in data_samples])


def _are_soft(data_samples: list) -> bool:
    """Whether an image has a soft label, several classes or none."""
    return any('gt_score' in sample and sample.gt_score.max() < 1 or len(sample.get('gt_label', ())) != 1
               for sample in data_samples)


def _checked_logits(logits, model: nn.Module, setting: str) -> Tensor:
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        found = f'a tensor {tuple(logits.shape)}' if isinstance(logits, Tensor) else f'a {type(logits).__name__}'
        head = type(getattr(model, 'head', None) or model).__name__
        raise ValueError(f'{setting}: expected logits (N, C) from {head}, got {found}. Use a head with one classifier '
                         "(LinearClsHead), or name a module by the term's `on`.")
    return logits
