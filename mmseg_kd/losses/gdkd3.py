from mmseg_kd.functional import gdkd3_loss
from mmseg_kd.registry import MODELS

from .base import DistillationLoss


@MODELS.register_module()
class GDKD3Loss(DistillationLoss):
    """Generalized decoupled knowledge distillation in three groups as a module.

    See :func:`~mmseg_kd.functional.gdkd3_loss`.

    Example:
        >>> import torch
        >>> GDKD3Loss(k=3)(torch.zeros(1, 5), torch.tensor([[4., 3., 2., 1., 0.]]))
        tensor(2.1157)
    """

    function = staticmethod(gdkd3_loss)
    parts = dict(
        between=dict(w0=1., w1=0., w2=0.), within_top=dict(w0=0., w1=1., w2=0.), within_rest=dict(w0=0., w1=0., w2=1.))
