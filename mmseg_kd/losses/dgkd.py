from torch import Tensor

from mmseg_kd.functional import dgkd_diagnostics, dgkd_loss
from mmseg_kd.functional.dgkd import check_coupling
from mmseg_kd.registry import MODELS

from .base import DistillationLoss


@MODELS.register_module()
class DGKDLoss(DistillationLoss):
    """DKD with a coupling term between its gradients (DGKD) as a module, see :func:`~mmseg_kd.functional.dgkd_loss`.

    Example:
        >>> import torch
        >>> loss = DGKDLoss(epsilon=0.)
        >>> loss(torch.zeros(1, 3), torch.tensor([[4., 2., 0.]]), torch.tensor([0]))
        tensor(1.5003)
    """

    function = staticmethod(dgkd_loss)
    needs_target = True
    # The mean of the coupling term is -epsilon whatever the logits; `diagnostics` tell what it does.
    parts = dict(target=dict(alpha=1., beta=0., epsilon=0.), non_target=dict(alpha=0., beta=1., epsilon=0.))

    def __init__(self, **settings) -> None:
        super().__init__(**settings)
        check_coupling(self.coupling, self.softening)

    def diagnostics(self, student: Tensor, teacher: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Cosine, norms and covariances, see :func:`~mmseg_kd.functional.dgkd_diagnostics`; for a hook to log."""
        names = ('alpha', 'beta', 'epsilon', 'temperature', 'coupling', 'softening', 'ignore_index')
        return dgkd_diagnostics(student, teacher, target, **{name: getattr(self, name) for name in names})
