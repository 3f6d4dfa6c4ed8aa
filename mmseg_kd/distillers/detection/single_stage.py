"""Distilled single-stage detectors: mmdet's, with a teacher."""
from contextlib import nullcontext

from mmdet.models.detectors import SingleStageDetector
from torch import Tensor, nn

from mmseg_kd.registry import MODELS
from mmseg_kd.taps import AUX_LOGITS, BOX_LOGITS, LOGITS

from ..terms import DistillTerm
from .dense_head import (
    check_dense_heads,
    class_scores,
    dense_answers,
    dense_positions,
    has_edge_distributions,
    is_sigmoid,
)
from .detector import DistilledDetector
from .positions import Scored

__all__ = ['DistilledSingleStageDetector']


@MODELS.register_module()
class DistilledSingleStageDetector(DistilledDetector, SingleStageDetector):
    r"""mmdet's ``SingleStageDetector`` (RetinaNet, FCOS, GFL, ATSS), distilled from a teacher while it trains.

    It *is* its student: same parameter names, checkpoints, inference. A training step runs the student once and the
    teacher once and adds one loss per distillation term to the student's own.

    ``on='logits'`` compares the class scores at all positions (anchors or points) of all levels. A sigmoid head decides
    for each class against the background; a term sees the distribution over classes *and* background that has these
    odds, softmax(z_1, ..., z_C, 0). The target of a position is the class that the student's own assigner gave it, or
    the background, which is class C: DKD's target part asks whether a position holds what it should hold, be that
    nothing. Class by class (BinaryKL, BinaryKL-Norm) the background adds nothing. Sums over positions are divided by
    the number of positions with an object, as by these heads themselves; positions that the student's loss ignores do
    not count.

    ``on='box_logits'``, of GFL, compares the distributions over the distances to the edges of the boxes with an object
    (localisation distillation), weighted as the head's own distribution loss; the target is the nearest bin.

    Args:
        teacher: See :class:`~DistilledEncoderDecoder`; ``'mmdet::...'`` names mmdet's configs. On scores it
            must have the student's anchors and strides.
        distill: ``dict(<name>=dict(loss=dict(type='mmseg_kd.DKDLoss', ...), on='logits', weight=None, adapter=None,
            schedule=None))``; ``on`` is ``'logits'``, ``'aux_logits'``, ``'box_logits'``, or names of modules as for
            segmentors (``'neck[0]'``, ``'backbone.layer4'``). ``weight`` of class scores: None, all positions alike;
            ``'foreground'``, those with an object; ``'confidence'``, by the teacher's highest probability of an object,
            divided by the sum of the weights.
        dual_head: ``dict(kind='linear'|'nonlinear')`` trains a second classifier on the features of the first, level by
            level; terms with ``on='aux_logits'`` read it, and the main one sees only the supervised loss (DHKD).
        **kwargs: Arguments of ``SingleStageDetector``.

    Raises:
        ValueError: teacher, checkpoint or a term does not fit; the message names the setting and the way out.
    """

    head_name = 'bbox_head'

    def __init__(self, *args, teacher: dict | list[dict], distill: dict, dual_head: dict | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self._init_distillation(teacher, distill, dual_head, ignore_index=None)

    @property
    def answers(self) -> tuple[str, ...]:
        """Taps that are not modules."""
        return (LOGITS, BOX_LOGITS) if has_edge_distributions(self.bbox_head) else (LOGITS, )

    @property
    def scores_are_sigmoid(self) -> bool:
        """Whether each class is a yes or no of its own."""
        return is_sigmoid(self.bbox_head)

    @staticmethod
    def teacher_logits(model: nn.Module, inputs: Tensor, scored: Scored | None = None) -> dict[str, Tensor]:
        """Scores of a single-stage detector in eval mode; see :func:`~.dense_head.dense_answers`.

        Args:
            model: The detector.
            inputs: Images (N, 3, H, W).
            scored: The student's positions, if they are known.
        """
        return dense_answers(model.bbox_head, model.extract_feat(inputs), scored)

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Losses of the student and of every distillation term.

        Args:
            inputs: Images (N, 3, H, W).
            data_samples: Their data samples with ``gt_instances``.
        """
        reads_scores = any(term.reads_logits for term in self.terms.values())
        collected = dense_positions(self.bbox_head) if reads_scores else nullcontext(Scored.nothing())
        with self._student_calls() as calls, collected as scored:
            losses = super().loss(inputs, data_samples)
        second = self.auxiliary_classifier
        if second is not None:
            scores = class_scores(self.bbox_head, [second(call.first) for call in calls.arguments[0]])
            scored.positions[AUX_LOGITS] = scored.positions[LOGITS]._replace(logits=scores)
        calls.outputs.update((tap, positions.logits) for tap, positions in scored.positions.items())
        teachers = self._ask_teachers(inputs, data_samples, scored)
        losses.update(self._distill_losses(calls.outputs, teachers, data_samples, scored))
        return losses

    def _check_heads(self, term: DistillTerm, teacher: nn.Module | None) -> None:
        check_dense_heads(self.bbox_head, teacher, term.setting)
        if term.student_tap == BOX_LOGITS:
            bins = [getattr(head, 'reg_max', None) for head in (self.bbox_head, teacher)]
            if not has_edge_distributions(teacher) or bins[0] != bins[1]:
                raise ValueError(f'`{term.setting}`: the distributions over the edges need the same bins in both '
                                 f'heads; the student has reg_max={bins[0]}, the teacher {type(teacher).__name__} '
                                 f'reg_max={bins[1]}. Take a teacher with GFL and the same `bbox_head.reg_max`.')
