from mmseg_kd.functional import hierarchical_context_loss
from mmseg_kd.registry import MODELS

from .base import DistillationLoss


@MODELS.register_module()
class HierarchicalContextLoss(DistillationLoss):
    """Hierarchical context loss of ReviewKD (Chen et al., CVPR 2021).

    A module around :func:`~mmseg_kd.functional.hierarchical_context_loss`.

    Example:
        >>> import torch
        >>> HierarchicalContextLoss()(torch.zeros(1, 1, 2, 2), torch.tensor([[[[2., -2.], [2., 2.]]]]))
        tensor(3.)
    """

    function = staticmethod(hierarchical_context_loss)
