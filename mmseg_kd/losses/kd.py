import torch
from torch import Tensor

from mmseg_kd.functional import dkd_loss, kd_loss
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

    @torch.no_grad()
    def part_values(self,
                    student: Tensor,
                    teacher: Tensor,
                    target: Tensor | None = None,
                    weight: Tensor | None = None,
                    reduction: str = 'mean') -> dict[str, Tensor]:
        """What KD spends on the target class and on the others; their plain sum is KD. None without labels.

        ``target`` is TCKD, ``non_target`` is (1 - teacher's probability of the target) NCKD (DKD, Zhao et al., CVPR
        2022, eq. 6).
        """
        if target is None:
            return {}
        settings = {**self.settings, 'reduction': reduction}
        whole = kd_loss(student, teacher, target, weight, **settings)
        if self.standardize is not None:
            settings['standardize'] = 'whole'
        of_target = dkd_loss(student, teacher, target, weight, alpha=1., beta=0., **settings)
        return dict(target=of_target, non_target=whole - of_target)
