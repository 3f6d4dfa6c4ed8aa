from mmseg_kd.functional import logit_mse_loss
from mmseg_kd.registry import MODELS

from .base import DistillationLoss


@MODELS.register_module()
class LogitMSELoss(DistillationLoss):
    """Squared distance of the logits as a module, see :func:`~mmseg_kd.functional.logit_mse_loss`.

    Example:
        >>> import torch
        >>> LogitMSELoss()(torch.zeros(1, 2), torch.tensor([[1., -2.]]))
        tensor(5.)
    """

    function = staticmethod(logit_mse_loss)
