from mmseg_kd.functional import binary_kl_norm_loss
from mmseg_kd.registry import MODELS

from .base import DistillationLoss


@MODELS.register_module()
class BinaryKLNormLoss(DistillationLoss):
    """BinaryKL-Norm of dual-head distillation (DHKD, Yang et al.) as a module.

    See :func:`~mmseg_kd.functional.binary_kl_norm_loss`.

    Example:
        >>> import torch
        >>> BinaryKLNormLoss(temperature=2.)(torch.zeros(1, 2), torch.tensor([[4., -4.]]))
        tensor(3.4702)
    """

    takes_one_channel = True
    function = staticmethod(binary_kl_norm_loss)
