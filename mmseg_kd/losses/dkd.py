from mmseg_kd.functional import dkd_loss
from mmseg_kd.registry import MODELS

from .base import DistillationLoss


@MODELS.register_module()
class DKDLoss(DistillationLoss):
    """Decoupled knowledge distillation (Zhao et al., CVPR 2022) as a module, see :func:`~mmseg_kd.functional.dkd_loss`.

    Example:
        >>> import torch
        >>> loss = DKDLoss(alpha=1., beta=2., temperature=4.)
        >>> loss(torch.zeros(1, 3), torch.tensor([[4., 2., 0.]]), torch.tensor([0]))
        tensor(1.9851)
    """

    function = staticmethod(dkd_loss)
    needs_target = True
    parts = dict(target=dict(alpha=1., beta=0.), non_target=dict(alpha=0., beta=1.))
