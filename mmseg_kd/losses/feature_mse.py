from mmseg_kd.functional import feature_mse_loss
from mmseg_kd.registry import MODELS

from .base import DistillationLoss


@MODELS.register_module()
class FeatureMSELoss(DistillationLoss):
    """Squared distance of features (FitNet, Romero et al., ICLR 2015).

    A module around :func:`~mmseg_kd.functional.feature_mse_loss`.

    Example:
        >>> import torch
        >>> FeatureMSELoss()(torch.zeros(1, 2), torch.tensor([[1., -2.]]))
        tensor(2.5000)
    """

    function = staticmethod(feature_mse_loss)
