"""The supervised loss of mmseg's heads: of some pictures, and without a full-resolution map of logits."""
import functools
from collections.abc import Sequence

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss
from torch import Tensor, nn

from mmseg_kd.functional import Upsampled
from mmseg_kd.functional.cross_entropy import cross_entropy_sum

__all__ = ['rows_of', 'tensors_in', 'upsample_in_head']


def rows_of(outputs, rows: Sequence[int], batch: int):
    """The part of a head's outputs (or inputs) that is of some pictures of the batch.

    Args:
        outputs: A tensor (N, ...), or lists and tuples of such.
        rows: Which pictures, in ascending order.
        batch: N.

    Raises:
        ValueError: a tensor has another number of rows, so that nobody knows which are of which picture.
    """
    if len(rows) == batch:
        return outputs
    if isinstance(outputs, Tensor):
        if len(outputs) != batch:
            raise ValueError('`train_dataloader.dataset`: with pictures without labels in the batch a decode head must '
                             f'return tensors with one row a picture, {batch}, got the shape {tuple(outputs.shape)}. '
                             'Train this head on labelled pictures only.')
        first, end = rows[0], rows[-1] + 1
        return outputs[first:end] if end - first == len(rows) else outputs[list(rows)]
    if isinstance(outputs, (list, tuple)):
        return type(outputs)([rows_of(each, rows, batch) for each in outputs])
    return outputs


def tensors_in(outputs) -> list[Tensor]:
    """All tensors of a head's outputs."""
    if isinstance(outputs, (list, tuple)):
        return [tensor for each in outputs for tensor in tensors_in(each)]
    return [outputs] if isinstance(outputs, Tensor) else []


def upsample_in_head(head: nn.Module, setting: str) -> None:
    """Let a head compute its loss from its small logits; its log keeps mmseg's names and values, up to rounding.

    Args:
        head: A decode head of mmseg.
        setting: Where it is in the config, for messages.

    Raises:
        ValueError: its loss is not cross-entropy over the classes of the head's own, resized logits.
    """
    own = type(head)
    if not issubclass(own, BaseDecodeHead) or own.loss_by_feat is not BaseDecodeHead.loss_by_feat:
        raise ValueError(f'`upsample_in_loss`: `{setting}`, a {own.__name__}, has a loss of its own kind; expected one '
                         'that resizes its logits and compares them with the labels. Remove `upsample_in_loss`.')
    if head.sampler is not None:
        raise ValueError(f'`upsample_in_loss`: `{setting}.sampler` looks at full-size logits. Remove one of them.')
    for loss in _losses(head):
        if not isinstance(loss, CrossEntropyLoss) or loss.use_sigmoid or loss.use_mask or loss.reduction != 'mean':
            raise ValueError(f'`upsample_in_loss`: `{setting}.loss_decode` is {loss!r}, expected CrossEntropyLoss over '
                             "the classes with reduction='mean'. Remove `upsample_in_loss`.")
    head.loss_by_feat = functools.partial(_loss_by_feat, head)


def _losses(head: nn.Module) -> list[nn.Module]:
    return list(head.loss_decode) if isinstance(head.loss_decode, nn.ModuleList) else [head.loss_decode]


def _loss_by_feat(head: nn.Module, seg_logits: Tensor, batch_data_samples: list) -> dict[str, Tensor]:
    """As ``BaseDecodeHead.loss_by_feat``."""
    label = head._stack_batch_gt(batch_data_samples).squeeze(1)
    logits = Upsampled(seg_logits, tuple(label.shape[1:]), head.align_corners)
    valid = label != head.ignore_index
    losses = {}
    for loss in _losses(head):
        weight = None if loss.class_weight is None else seg_logits.new_tensor(loss.class_weight, dtype=torch.float32)
        total, correct = cross_entropy_sum(logits, label, class_weight=weight, ignore_index=head.ignore_index)
        if weight is not None:
            divisor = weight[label[valid]].sum()
        else:
            divisor = valid.sum() if loss.avg_non_ignore else label.numel()
        value = loss.loss_weight * total / (divisor + torch.finfo(torch.float32).eps)
        losses[loss.loss_name] = losses.get(loss.loss_name, 0.) + value
    eps = torch.finfo(torch.float32).eps
    losses['acc_seg'] = (100. * (correct + eps) / (valid.sum() + eps)).float().reshape(1)
    return losses
