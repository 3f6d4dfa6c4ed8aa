"""Which of a decode head's outputs are the class logits of its main classifier."""
from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ['main_logits']

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
