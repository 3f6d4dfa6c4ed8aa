"""Where an mmpretrain head classifies."""
from torch import nn

__all__ = ['main_linear']

# The layer whose output is a head's logits, by the head's class.
_LAYERS = dict(LinearClsHead='fc', MultiLabelLinearClsHead='fc', StackedLinearClsHead='fc.fc', VigClsHead='fc2',
               VisionTransformerClsHead='layers.head')
_REASONS = dict(
    DeiTClsHead='its logits are the mean of two classifiers, of two tokens',
    ConformerHead='it has two classifiers already, of two branches',
    ArcFaceClsHead='its logits are cosines with a margin, there is no linear classifier')


def main_linear(head: nn.Module) -> nn.Linear:
    """Return the linear layer that turns a head's features into its logits.

    Args:
        head: An mmpretrain classification head.

    Raises:
        ValueError: the head's logits are not those of one linear layer; the message names it and says why.
    """
    names = [cls.__name__ for cls in type(head).__mro__]
    reason = next((_REASONS[name] for name in names if name in _REASONS), None)
    path = next((_LAYERS[name] for name in names if name in _LAYERS), None)
    if reason is None and path is None:
        reason = f'of its layers none is known to give its logits; known are the heads {sorted(_LAYERS)}'
    if reason is not None:
        raise ValueError(f'`dual_head`: {names[0]} cannot have a second classifier: {reason}. Remove `dual_head` and '
                         "the terms with on='aux_logits', or take LinearClsHead.")
    return head.get_submodule(path)
