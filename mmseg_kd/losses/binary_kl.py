from mmseg_kd.functional import binary_kl_loss
from mmseg_kd.registry import MODELS

from .base import DistillationLoss


@MODELS.register_module()
class BinaryKLLoss(DistillationLoss):
    """BinaryKL of dual-head distillation (DHKD, Yang et al.) as a module.

    See :func:`~mmseg_kd.functional.binary_kl_loss`.

    Example:
        >>> import torch
        >>> BinaryKLLoss(temperature=2.)(torch.zeros(1, 2), torch.tensor([[2., -2.]]))
        tensor(0.8876)
    """

    takes_one_channel = True
    function = staticmethod(binary_kl_loss)
