from mmseg_kd.functional import kd_loss
from mmseg_kd.registry import MODELS

from .base import DistillationLoss


@MODELS.register_module()
class KDLoss(DistillationLoss):
    """Knowledge distillation (Hinton et al., 2015) as a module, see :func:`~mmseg_kd.functional.kd_loss`.

    Example:
        >>> import torch
        >>> KDLoss(temperature=1.)(torch.zeros(1, 2), torch.tensor([[1., 0.]]))
        tensor(0.1109)
    """

    function = staticmethod(kd_loss)
