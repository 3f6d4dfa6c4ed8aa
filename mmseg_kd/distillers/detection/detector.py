"""What distilled detectors share: mmdet's, with a teacher."""
from torch import Tensor, nn

from mmseg_kd.functional.evaluate import divisor_of
from mmseg_kd.losses import DistillationLoss
from mmseg_kd.taps import AUX_LOGITS, LOGITS, is_module

from ..base import Distilled
from ..compare import compare_vectors
from ..terms import DistillTerm
from .heads import main_branch
from .positions import WEIGHTS, Positions, Scored, foreground_confidence, weighted

__all__ = ['DistilledDetector']


class DistilledDetector(Distilled):
    """Terms compare the scores at the positions of the student's own losses, or maps of features."""

    scope = 'mmdet'
    weights = WEIGHTS
    maps_classes = False

    @property
    def scores_are_sigmoid(self) -> bool:
        """Whether each class is a yes or no of its own."""
        raise NotImplementedError

    def main_classifier(self) -> nn.Conv2d | nn.Linear:
        """The layer that gives the class scores; see :func:`~.heads.main_branch`."""
        return main_branch(getattr(self, self.head_name))

    def _check_heads(self, term: DistillTerm, teacher: nn.Module | None) -> None:
        """Refuse a teacher's head (None: there is none) that cannot score the student's positions."""
        raise NotImplementedError

    def _check_classes(self, terms: nn.ModuleDict) -> None:
        if any(teacher.class_map is not None for teacher in self.teachers):
            raise ValueError("`teacher.class_map`: scores of detectors are compared class by class, with the student's "
                             'own classes. Remove it, and take a teacher of the same data set or compare features.')
        for term in terms.values():
            if term.weight is not None and term.student_tap not in (LOGITS, AUX_LOGITS):
                raise ValueError(f"`distill.{term.name}.weight`: {term.weight!r} weights the positions of class "
                                 f"scores, on='logits' or 'aux_logits', and the term reads {term.student_tap!r}; "
                                 'remove it.')
            if not term.reads_logits:
                continue
            if term.teacher_tap != (LOGITS if term.student_tap == AUX_LOGITS else term.student_tap):
                raise ValueError(f'`{term.setting}`: the scores of detectors are compared with their like alone, got '
                                 f'{term.student_tap!r} and {term.teacher_tap!r}.')
            for teacher in self.teachers:
                self._check_heads(term, getattr(teacher.model, self.head_name, None))
                own, others = (_num_classes(getattr(model, self.head_name)) for model in (self, teacher.model))
                if own != others:
                    raise ValueError(
                        f'`teacher.config`: `{term.setting}` compares scores, so student and teacher must know the '
                        f'same classes; the student has {own}, the teacher {others}. Take a teacher of the same data '
                        'set, or set `num_classes` of one of them.')

    def _term_loss(self, term: DistillTerm, student: Tensor, teacher: Tensor, data_samples: list,
                   at: Scored) -> Tensor:
        if is_module(term.student_taps[0]):
            return compare_vectors(term, student, teacher, None)
        positions = at.positions[term.student_tap]
        if len(student) != len(teacher):
            raise ValueError(f'`{term.setting}`: the student has scores at {len(student)} positions, the teacher at '
                             f'{len(teacher)}; maps of both must have the same sizes at each level.')
        return _loss_at(term, positions, teacher, self.scores_are_sigmoid)


def _loss_at(term: DistillTerm, positions: Positions, teacher: Tensor, sigmoid: bool) -> Tensor:
    """A term's loss at the positions that its ``weight`` leaves, divided as the student's own is."""
    confidence = foreground_confidence(teacher, sigmoid) if term.weight == 'confidence' else None
    weight, count = weighted(positions, term.weight, confidence)
    student, target = positions.logits, positions.target
    from_elsewhere = not isinstance(term.loss, DistillationLoss)
    # Few of many; and a loss from elsewhere knows no weights.
    if weight.dim() == 1 and (term.weight == 'foreground' or from_elsewhere):
        student, teacher, target, weight = (each[weight != 0] for each in (student, teacher, target, weight))
    if from_elsewhere:
        return term.loss(student, teacher, target)
    return term.loss(student, teacher, target, weight,
                     avg_factor=divisor_of(count) if term.loss.reduction == 'mean' else None)


def _num_classes(head: nn.Module) -> int:
    box_head = getattr(head, 'bbox_head', head)
    return (box_head[0] if isinstance(box_head, nn.ModuleList) else box_head).num_classes
