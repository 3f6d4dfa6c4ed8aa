from mmseg_kd.functional import cwd_loss
from mmseg_kd.registry import MODELS

from .base import DistillationLoss


@MODELS.register_module()
class CWDLoss(DistillationLoss):
    """Channel-wise distillation (Shu et al., ICCV 2021) as a module, see :func:`~mmseg_kd.functional.cwd_loss`.

    Example:
        >>> import torch
        >>> CWDLoss(loss_weight=3.)(torch.zeros(1, 1, 2), torch.tensor([[[4., 0.]]]))
        tensor(5.3253)
    """

    function = staticmethod(cwd_loss)
