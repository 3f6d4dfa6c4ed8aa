from mmseg_kd.functional import attention_transfer_loss
from mmseg_kd.registry import MODELS

from .base import DistillationLoss


@MODELS.register_module()
class AttentionTransferLoss(DistillationLoss):
    """Attention transfer (Zagoruyko and Komodakis, ICLR 2017).

    A module around :func:`~mmseg_kd.functional.attention_transfer_loss`.

    Example:
        >>> import torch
        >>> AttentionTransferLoss()(torch.tensor([[[1., 0.]]]), torch.tensor([[[0., 2.], [0., 1.]]]))
        tensor(2.)
    """

    function = staticmethod(attention_transfer_loss)
    compares_channels = False
