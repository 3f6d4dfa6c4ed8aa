from mmseg_kd.functional import stochastic_gdkd_loss
from mmseg_kd.registry import MODELS

from .base import DistillationLoss


@MODELS.register_module()
class StochasticGDKDLoss(DistillationLoss):
    """GDKD against a random part of the classes as a module, see :func:`~mmseg_kd.functional.stochastic_gdkd_loss`.

    Example:
        >>> import torch
        >>> StochasticGDKDLoss(keep=1.)(torch.zeros(1, 3), torch.tensor([[4., 2., 0.]]), torch.tensor([0]))
        tensor(4.8939)
    """

    function = staticmethod(stochastic_gdkd_loss)
    needs_target = True
