"""Class scores of mmdet's box heads and masks of its mask heads, proposal by proposal."""
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from torch import Tensor, nn

from mmseg_kd.taps import LOGITS, MASK_LOGITS, Arguments, ModuleCalls, module_calls

from .positions import LossCall, Positions, Scored, joined

__all__ = ['check_roi_heads', 'proposal_positions', 'roi_answers']


def _each(modules: nn.Module) -> list[nn.Module]:
    return list(modules) if isinstance(modules, nn.ModuleList) else [modules]


def _is_known(head: nn.Module) -> bool:
    return any(all(getattr(type(head), name) is getattr(known, name) for name in ('loss', 'bbox_loss', '_bbox_forward'))
               for known in (StandardRoIHead, CascadeRoIHead))


def _masks_are_known(head: nn.Module) -> bool:
    return head.with_mask and not head.share_roi_extractor and any(
        all(getattr(type(head), name) is getattr(known, name) for name in ('mask_loss', '_mask_forward'))
        for known in (StandardRoIHead, CascadeRoIHead))


@contextmanager
def proposal_positions(head: nn.Module, masks: bool) -> Iterator[Scored]:
    """Collect where a second stage computes its losses while the block runs.

    Args:
        head: A known RoI head.
        masks: Whether masks are wanted as well.

    Yields:
        Filled when the block ends. ``'logits'``: the sampled proposals of every stage, with the classes assigned to
        them, weighted as the student weights its stages. ``'mask_logits'``: the mask (P, 1, h, w) of the assigned
        class, of the positive proposals.
    """
    found = Scored.nothing()
    boxes, weights = _each(head.bbox_head), getattr(head, 'stage_loss_weights', [1.])
    mask_heads, mask_extractors = (_each(head.mask_head), _each(head.mask_roi_extractor)) if masks else ([], [])
    with (module_calls({}, [each.loss_cls for each in boxes]) as of_scores,
          module_calls({}, _each(head.bbox_roi_extractor)) as extracted,
          module_calls({}, [each.loss_mask for each in mask_heads]) as of_masks,
          module_calls({}, mask_extractors) as extracted_for_masks):
        yield found
    found.boxes.extend(_rois(extracted))
    stages = [_stage(each, weight) for each, weight in zip(of_scores.arguments, weights, strict=True) if each]
    found.positions[LOGITS] = _of_stages(stages, boxes[0].num_classes + 1, found.boxes[0])
    if masks:
        found.masked.extend(_rois(extracted_for_masks))
        stages = [_mask_stage(LossCall.of(each[0]), weight)
                  for each, weight in zip(of_masks.arguments, weights, strict=True) if each]
        found.positions[MASK_LOGITS] = _of_stages(stages, 1, found.boxes[0])


def _rois(extracted: ModuleCalls) -> list[Tensor]:
    return [call.positional[1] for calls in extracted.arguments for call in calls]


def _stage(calls: Sequence[Arguments], stage_weight: float) -> Positions:
    call = LossCall.of(*calls)
    return Positions(call.prediction, call.target, call.weight * stage_weight, (call.weight > 0).sum().to(
        call.weight.dtype))


def _mask_stage(call: LossCall, stage_weight: float) -> Positions:
    # mmdet's mask loss has the masks where others have classes, and the classes where others have weights.
    masks = _of_class(call.prediction, call.weight)
    weight = torch.full_like(call.target, stage_weight)
    return Positions(masks, torch.zeros_like(call.target, dtype=torch.long), weight, weight.new_tensor(weight.numel()))


def _of_class(masks: Tensor, classes: Tensor) -> Tensor:
    """The mask of its class, (P, 1, h, w), of each (P, C, h, w); the only one where masks know no classes."""
    if masks.shape[1] == 1:
        return masks
    return masks[torch.arange(len(masks), device=masks.device), classes][:, None]


def _of_stages(stages: list[Positions], channels: int, like: Tensor) -> Positions:
    if not stages:  # no proposal, or none with an object
        none = like.new_zeros(0)
        return Positions(none.view(0, channels), none.long(), none, none.sum())
    together = joined(stages)
    if together.logits.requires_grad:
        # The layout of a gradient decides how it is summed up: weight 0 is to change no bit of the student's own.
        together.logits.register_hook(Tensor.contiguous)
    # The sum of the stages' means, as the student's own; that they have one size each makes it one mean.
    return together._replace(count=together.count / len(stages), groups=len(stages))


@torch.no_grad()
def roi_answers(head: nn.Module, features: Sequence[Tensor], scored: Scored) -> dict[str, Tensor]:
    """What a teacher's second stage says of the student's proposals.

    Args:
        head: The teacher's RoI head; its n-th stage scores the boxes of the student's n-th.
        features: The teacher's maps of all levels.
        scored: The student's proposals.

    Returns:
        ``'logits'`` (N, classes + 1) and, if the student's are there, ``'mask_logits'`` (P, 1, h, w).
    """
    cascade = isinstance(head, CascadeRoIHead)
    def stage(number: int) -> tuple:
        return (number, ) if cascade else ()
    scores = [head._bbox_forward(*stage(number), features, boxes)['cls_score']
              for number, boxes in enumerate(scored.boxes) if len(boxes)]
    positions = scored.positions[LOGITS]
    answers = {LOGITS: torch.cat(scores) if scores else positions.logits.detach()}
    if MASK_LOGITS in scored.positions:
        classes = positions.target[positions.foreground]
        masks = [head._mask_forward(*stage(number), features, boxes)['mask_preds']
                 for number, boxes in enumerate(scored.masked) if len(boxes)]
        answers[MASK_LOGITS] = _of_class(torch.cat(masks), classes) if masks else (
            scored.positions[MASK_LOGITS].logits.detach())
    return answers


def check_roi_heads(student: nn.Module, teacher: nn.Module | None, setting: str, masks: bool) -> None:
    """Refuse second stages that cannot score the same proposals.

    Args:
        student: The student's RoI head.
        teacher: A teacher's; None: it has none.
        setting: The term's setting, for the message.
        masks: Whether it reads masks.

    Raises:
        ValueError: a head is not known, a score is not a softmax, or the teacher has fewer stages.
    """
    for head, whose in ((student, 'student'), (teacher, 'teacher')):
        if head is None or not _is_known(head) or masks and not _masks_are_known(head):
            what = 'masks' if masks and head is not None and _is_known(head) else 'scores'
            raise ValueError(
                f'`{setting}`: the {whose} has {type(head).__name__ if head is not None else "no second stage"}, whose '
                f'{what} of given proposals cannot be had; known are the second stages of Faster R-CNN, Mask R-CNN '
                "and Cascade R-CNN. Compare features instead (on='backbone.layer4').")
        for box_head in _each(head.bbox_head):
            if box_head.loss_cls.use_sigmoid or box_head.custom_cls_channels:
                raise ValueError(f'`{setting}`: expected box heads with a softmax over classes and background, got '
                                 f'{type(box_head.loss_cls).__name__} in the {whose}. Set '
                                 '`roi_head.bbox_head.loss_cls.use_sigmoid` to False.')
    numbers = [len(_each(head.bbox_head)) for head in (student, teacher)]
    if numbers[0] > numbers[1]:
        raise ValueError(f'`teacher.config`: the student has {numbers[0]} stages, the teacher {numbers[1]}; '
                         f"`{setting}` compares stage by stage. Take a teacher with as many stages, or compare "
                         "features (on='backbone.layer4').")
