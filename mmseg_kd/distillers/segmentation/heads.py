"""What is known of mmseg's decode heads: where they classify, and what they return."""
from collections.abc import Callable, Collection, Sequence

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from mmseg_kd.taps import AUXILIARY_HEAD
from mmseg_kd.teachers.class_scores import scores_as_logits

__all__ = ['as_logits', 'auxiliary_answers', 'auxiliary_head', 'main_classifier', 'main_logits', 'predicts_scores']

# Heads whose logits are not a linear map of one feature map. A second classifier has nothing to share with them.
_REASONS = dict(
    PointHead='it classifies sampled points, not a feature map; use the dual head on a model without point refinement',
    SegmenterMaskTransformerHead='its logits are products of patch and class embeddings, there is no classifier layer',
    MaskFormerHead='it predicts masks and classes of queries, there is no classifier of pixels',
    Mask2FormerHead='it predicts masks and classes of queries, there is no classifier of pixels',
    IterativeDecodeHead='its logits come from kernels that are updated for each image; `conv_seg` makes only the first '
                        'guess',
    SideAdapterCLIPHead='it compares mask proposals with text embeddings, there is no classifier layer',
    VPDDepthHead='it estimates depth and has no classes')


def main_classifier(head: nn.Module) -> nn.Conv2d:
    """Return the convolution that turns a head's features into its main logits.

    Args:
        head: An mmseg decode head.

    Raises:
        ValueError: the head does not classify through ``conv_seg``; the message names it and says why.
    """
    names = [cls.__name__ for cls in type(head).__mro__]
    reason = next((_REASONS[name] for name in names if name in _REASONS), None)
    classifier = getattr(head, 'conv_seg', None)
    if reason is None and not isinstance(classifier, nn.Conv2d):
        reason = 'it has no layer `conv_seg`'
    if reason is not None:
        raise ValueError(f'`dual_head`: {names[0]} cannot have a second classifier: {reason}. Remove `dual_head` and '
                         "the terms with on='aux_logits', or take a decode head that classifies through `conv_seg`.")
    return classifier


# Position of `conv_seg`'s logits among several training outputs, where it is not the first (as in DAHead, DDRHead,
# EncHead): PIDHead returns (detail branch, main, boundary), K-Net one map per stage, the last being the prediction.
_POSITION = {'PIDHead': 1, 'IterativeDecodeHead': -1}


def main_logits(head: nn.Module, outputs: Tensor | Sequence[Tensor]) -> Tensor:
    """Pick the main class logits out of what ``head.forward`` returns in training.

    Args:
        head: An mmseg decode head.
        outputs: A tensor (N, C, h, w), or a sequence of outputs of which one is.

    Returns:
        Logits (N, C, h, w).
    """
    if isinstance(outputs, Tensor):
        return outputs
    position = next((_POSITION[cls.__name__] for cls in type(head).__mro__ if cls.__name__ in _POSITION), 0)
    return outputs[position]


# Their `predict` returns, for each pixel, the sum over the queries of class probability times mask probability.
_QUERY_HEADS = {'MaskFormerHead', 'Mask2FormerHead', 'SideAdapterCLIPHead'}


def predicts_scores(head: nn.Module | None) -> bool:
    """Whether what a head predicts are scores of classes, not logits; see :func:`as_logits`."""
    return any(cls.__name__ in _QUERY_HEADS for cls in type(head).__mro__)


def as_logits(head: nn.Module, prediction: Tensor) -> Tensor:
    """What a head predicts for each pixel, as logits: those of dense heads as they are, the scores of query heads
    through :func:`~.class_scores.scores_as_logits`.

    Args:
        head: A decode head of mmseg.
        prediction: (N, C, H, W) of its ``predict``.
    """
    if not predicts_scores(head):
        return prediction
    return scores_as_logits(prediction)


def auxiliary_head(model: nn.Module, tap: str, setting: str) -> nn.Module:
    """The head that ``'auxiliary_head'`` or ``'auxiliary_head[1]'`` names.

    Args:
        model: A segmentor.
        tap: What a term reads.
        setting: Name of the term's setting, for messages.

    Raises:
        ValueError: there is no such head, or it makes no map of class logits.
    """
    heads = getattr(model, AUXILIARY_HEAD, None)
    several = list(heads) if isinstance(heads, nn.ModuleList) else None
    known = [AUXILIARY_HEAD] if several is None else [f'{AUXILIARY_HEAD}[{index}]' for index in range(len(several))]
    if tap not in known:
        raise ValueError(f'`{setting}`: {tap!r} is not one of the auxiliary heads of {type(model).__name__}, expected '
                         f'{" or ".join(map(repr, known))}.')
    head = heads if several is None else several[known.index(tap)]
    if not isinstance(head, BaseDecodeHead) or type(head).loss is not BaseDecodeHead.loss:
        raise ValueError(f'`{setting}`: {tap!r} is a {type(head).__name__}, expected a decode head of mmseg that makes '
                         'a map of class logits. Name a module inside it.')
    return head


def auxiliary_answers(model: nn.Module, taps: Collection[str], ask: Callable[[nn.Module], object]) -> dict[str, object]:
    """What :func:`~mmseg_kd.taps.read_tap` reads at taps of auxiliary heads: an answer, or one for each of several.

    Args:
        model: A segmentor.
        taps: Those that are read; the other heads are not asked.
        ask: Called with a head.
    """
    heads = model.auxiliary_head
    if not isinstance(heads, nn.ModuleList):
        return {AUXILIARY_HEAD: ask(heads)}
    return {AUXILIARY_HEAD: tuple(ask(head) if f'{AUXILIARY_HEAD}[{index}]' in taps else None
                                  for index, head in enumerate(heads))}
