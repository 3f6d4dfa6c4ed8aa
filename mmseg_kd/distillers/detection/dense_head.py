"""Class scores of mmdet's dense heads, position by position."""
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from mmdet.models.dense_heads import ATSSHead, FCOSHead, GFLHead
from mmdet.models.dense_heads.anchor_head import AnchorHead
from torch import Tensor, nn

from mmseg_kd.taps import BOX_LOGITS, LOGITS, module_calls

from .positions import LossCall, Positions, Scored

__all__ = [
    'check_dense_heads', 'class_scores', 'dense_answers', 'dense_positions', 'has_edge_distributions', 'is_sigmoid'
]

# Heads whose classification loss sees every position, level by level, image by image, row by row.
_KNOWN = (AnchorHead, ATSSHead, FCOSHead, GFLHead)


def is_sigmoid(head: nn.Module) -> bool:
    """Whether each class is a yes or no of its own, and the background has no score."""
    return bool(head.loss_cls.use_sigmoid)


def has_edge_distributions(head: nn.Module) -> bool:
    """Whether a head predicts a distribution over the distances to each edge of a box (GFL)."""
    return isinstance(head, GFLHead) and _is_known(head)


def _is_known(head: nn.Module) -> bool:
    return any(all(getattr(type(head), name, None) is getattr(known, name, None)
                   for name in ('loss_by_feat', 'loss_by_feat_single')) for known in _KNOWN)


@contextmanager
def dense_positions(head: nn.Module) -> Iterator[Scored]:
    """Collect where a dense head computes its losses while the block runs.

    Yields:
        Filled when the block ends. ``'logits'``: all positions of all levels, with the classes assigned to them.
        ``'box_logits'``, of GFL: the four edges of each positive position, with the bin nearest to the true distance.
    """
    found = Scored.nothing()
    losses = [head.loss_cls] + ([head.loss_dfl] if has_edge_distributions(head) else [])
    with module_calls({}, losses) as seen:
        yield found
    calls = [[LossCall.of(call) for call in each] for each in seen.arguments]
    found.positions[LOGITS] = _class_positions(head, calls[0])
    if len(losses) == 2:
        found.positions[BOX_LOGITS] = _edge_positions(calls[1], head.reg_max, found.positions[LOGITS])


def _class_positions(head: nn.Module, calls: Sequence[LossCall]) -> Positions:
    # A quality focal loss has (classes, qualities) as its target.
    target = torch.cat([call.target[0] if isinstance(call.target, tuple) else call.target for call in calls])
    logits = _with_background(head, torch.cat([call.prediction for call in calls]))
    weight = torch.cat([call.prediction.new_ones(len(call.prediction)) if call.weight is None else call.weight
                        for call in calls])
    positive = (target < head.num_classes) & (weight != 0)
    return Positions(logits, target, weight, positive.sum().to(weight.dtype))


def _edge_positions(calls: Sequence[LossCall], reg_max: int, classes: Positions) -> Positions:
    if not calls:
        none = classes.logits.new_zeros(0)
        return Positions(none.view(0, reg_max + 1), none.long(), none, none.sum())
    # mmdet divides by the four edges, and by the sum of the positions' weights.
    weight = torch.cat([call.weight for call in calls]) / 4
    target = torch.cat([call.target for call in calls]).round().long()
    return Positions(torch.cat([call.prediction for call in calls]), target, weight, weight.sum())


def dense_answers(head: nn.Module, features: Sequence[Tensor], scored: Scored | None = None) -> dict[str, Tensor]:
    """What a dense head says at the positions that :func:`dense_positions` finds.

    Args:
        head: A known dense head.
        features: Maps of all levels.
        scored: The student's positions; without them the edges' distributions are left out.

    Returns:
        ``'logits'``: (N, classes + 1), see :func:`_with_background`. ``'box_logits'``, of GFL: (4 P, bins) of the P
        positive positions.
    """
    scores, boxes = head(features)[:2]
    answers = {LOGITS: class_scores(head, scores)}
    if scored is not None and BOX_LOGITS in scored.positions and has_edge_distributions(head):
        positions = scored.positions[LOGITS]
        # A head's regression loss takes all that has an object, whatever its weight.
        answers[BOX_LOGITS] = _flat(boxes, 4 * (head.reg_max + 1))[positions.foreground].view(-1, head.reg_max + 1)
    return answers


def class_scores(head: nn.Module, maps: Sequence[Tensor]) -> Tensor:
    """(N, classes + 1) at all positions, see :func:`_with_background`, from a classifier's maps of all levels."""
    return _with_background(head, _flat(maps, head.cls_out_channels))


def _flat(maps: Sequence[Tensor], channels: int) -> Tensor:
    """(N, channels) from maps (B, A * channels, h, w) of each level, in the order of mmdet's losses."""
    return torch.cat([each.permute(0, 2, 3, 1).reshape(-1, channels) for each in maps])


def _with_background(head: nn.Module, logits: Tensor) -> Tensor:
    r"""The logits of a distribution over classes and background, (N, C + 1).

    A sigmoid head decides for each class c against the background, with odds exp(z_c). The distribution over all
    classes and the background that has these odds is the softmax of z with a 0 for the background. In losses that
    compare class by class (BinaryKL and its kin) the 0 on both sides adds nothing.
    """
    return torch.cat([logits, logits.new_zeros(len(logits), 1)], 1) if is_sigmoid(head) else logits


def check_dense_heads(student: nn.Module, teacher: nn.Module | None, setting: str) -> None:
    """Refuse heads whose scores cannot be compared position by position.

    Args:
        student: The student's head.
        teacher: A teacher's; None: it has no dense head.
        setting: The term's setting, for the message.

    Raises:
        ValueError: a head is not known, or the two score other positions.
    """
    for head, whose in ((student, 'student'), (teacher, 'teacher')):
        if head is None or not _is_known(head):
            raise ValueError(
                f'`{setting}`: the {whose} has {type(head).__name__ if head is not None else "no dense head"}, whose '
                'positions cannot be matched; known are the heads of RetinaNet, FCOS, GFL and ATSS and those that '
                "inherit their losses. Compare features instead (on='backbone.layer4').")
    if is_sigmoid(student) != is_sigmoid(teacher):
        names = ['sigmoid' if is_sigmoid(head) else 'softmax' for head in (student, teacher)]
        raise ValueError(f'`teacher.config`: the scores of the student are of {names[0]} kind, those of the teacher of '
                         f'{names[1]} kind; `{setting}` needs one kind. Set `bbox_head.loss_cls.use_sigmoid` alike.')
    ours, theirs = _priors(student), _priors(teacher)
    if ours != theirs:
        raise ValueError(
            f'`teacher.config`: `{setting}` compares scores position by position, but the heads have other positions; '
            f'the student has strides and anchors {ours}, the teacher {theirs}. Train the teacher with the '
            "`anchor_generator` and `neck` of the student, or compare features (on='backbone.layer4').")


def _priors(head: nn.Module) -> list[tuple]:
    """Stride and anchors (as rounded boxes around the cell) of each level; a lone anchor stands for its cell."""
    generator = head.prior_generator
    anchors = getattr(generator, 'base_anchors', None)
    return [(tuple(stride), number if number == 1 or anchors is None else [
                tuple(round(side, 2) for side in anchor) for anchor in anchors[level].tolist()])
            for level, (stride, number) in enumerate(
                zip(generator.strides, generator.num_base_priors, strict=True))]
