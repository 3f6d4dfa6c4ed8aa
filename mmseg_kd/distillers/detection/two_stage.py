"""Distilled two-stage detectors: mmdet's, with a teacher."""
from contextlib import nullcontext

from mmdet.models.detectors import TwoStageDetector
from torch import Tensor, nn

from mmseg_kd.registry import MODELS
from mmseg_kd.taps import AUX_LOGITS, LOGITS, MASK_LOGITS

from ..terms import DistillTerm
from .box_head import check_roi_heads, proposal_positions, roi_answers
from .detector import DistilledDetector
from .positions import Scored

__all__ = ['DistilledTwoStageDetector']


@MODELS.register_module()
class DistilledTwoStageDetector(DistilledDetector, TwoStageDetector):
    """mmdet's ``TwoStageDetector`` (Faster, Mask, Cascade R-CNN), distilled from a teacher while it trains.

    It *is* its student: same parameter names, checkpoints, inference. The teacher's second stage scores the proposals
    that the student sampled for its own loss (as the detection code of Zhao et al., CVPR 2022, DKD), so anchors
    and proposals of the two need not agree.

    ``on='logits'`` compares the softmax over classes and background of the sampled proposals, whose target is the class
    that the student's assigner gave them, or the background (class C); the mean is over the proposals. All
    stages of a cascade are compared, each with the teacher's of the same number, and added with the student's own
    weights of the stages. ``on='mask_logits'`` compares, with ``BinaryKLLoss``, the masks of the positive proposals,
    each of its class.

    Args:
        teacher: See :class:`~DistilledEncoderDecoder`; ``'mmdet::...'`` names mmdet's configs.
        distill: ``dict(<name>=dict(loss=dict(type='mmseg_kd.DKDLoss', ...), on='logits', weight=None, adapter=None,
            schedule=None))``; ``on`` is ``'logits'``, ``'aux_logits'``, ``'mask_logits'``, or names of modules as for
            segmentors. ``weight`` of class scores as in :class:`~.single_stage.DistilledSingleStageDetector`.
        dual_head: ``dict(kind='linear'|'nonlinear')`` trains a second classifier on the box head's features; terms with
            ``on='aux_logits'`` read it, and the main one sees only the supervised loss (DHKD). A cascade cannot have
            one.
        **kwargs: Arguments of ``TwoStageDetector``.

    Raises:
        ValueError: teacher, checkpoint or a term does not fit; the message names the setting and the way out.
    """

    head_name = 'roi_head'
    scores_are_sigmoid = False

    def __init__(self, *args, teacher: dict | list[dict], distill: dict, dual_head: dict | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self._init_distillation(teacher, distill, dual_head, ignore_index=None)

    @property
    def answers(self) -> tuple[str, ...]:
        """Taps that are not modules."""
        return (LOGITS, MASK_LOGITS) if self.roi_head.with_mask else (LOGITS, )

    @staticmethod
    def teacher_logits(model: nn.Module, inputs: Tensor, scored: Scored | None = None) -> dict[str, Tensor]:
        """Scores of a two-stage detector in eval mode; see :func:`~.box_head.roi_answers`.

        Args:
            model: The detector.
            inputs: Images (N, 3, H, W).
            scored: The student's proposals; without them the network only runs for its features.
        """
        features = model.extract_feat(inputs)
        return roi_answers(model.roi_head, features, scored) if scored is not None and scored.positions else {}

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Losses of the student and of every distillation term.

        Args:
            inputs: Images (N, 3, H, W).
            data_samples: Their data samples with ``gt_instances``.
        """
        reads_scores = any(term.reads_logits for term in self.terms.values())
        reads_masks = any(MASK_LOGITS in term.student_taps for term in self.terms.values())
        collected = proposal_positions(self.roi_head, reads_masks) if reads_scores else nullcontext(Scored.nothing())
        with self._student_calls() as calls, collected as scored:
            losses = super().loss(inputs, data_samples)
        second = self.auxiliary_classifier
        if second is not None:
            positions, seen = scored.positions[LOGITS], calls.arguments[0]
            # The box head is not asked where there is no proposal.
            scores = second(seen[-1].first) if seen else positions.logits
            scored.positions[AUX_LOGITS] = positions._replace(logits=scores)
        calls.outputs.update((tap, positions.logits) for tap, positions in scored.positions.items())
        teachers = self._ask_teachers(inputs, data_samples, scored)
        losses.update(self._distill_losses(calls.outputs, teachers, data_samples, scored))
        return losses

    def _check_heads(self, term: DistillTerm, teacher: nn.Module | None) -> None:
        check_roi_heads(self.roi_head, teacher, term.setting, term.student_tap == MASK_LOGITS)
