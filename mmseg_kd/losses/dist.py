from mmseg_kd.functional import dist_loss
from mmseg_kd.registry import MODELS

from .base import DistillationLoss


@MODELS.register_module()
class DISTLoss(DistillationLoss):
    """DIST (Huang et al., NeurIPS 2022) as a module, see :func:`~mmseg_kd.functional.dist_loss`.

    Example:
        >>> import torch
        >>> DISTLoss(beta=1., gamma=0.)(torch.tensor([[0., 1., 2.]]), torch.tensor([[2., 1., 0.]]))
        tensor(1.8671)
    """

    function = staticmethod(dist_loss)
    parts = dict(inter_class=dict(beta=1., gamma=0.), intra_class=dict(beta=0., gamma=1.))
