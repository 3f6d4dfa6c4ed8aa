"""Where an mmseg decode head classifies."""
from torch import nn

__all__ = ['main_classifier']

# Heads whose logits are no linear map of one feature map. A second classifier has nothing to share with them.
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
