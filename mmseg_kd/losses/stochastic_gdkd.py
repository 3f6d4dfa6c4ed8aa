import torch
from torch import Tensor

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
    parts = dict(between=dict(w0=1., w1=0.), within_rest=dict(w0=0., w1=1.))

    def part_values(self, student: Tensor, *args, **kwargs) -> dict[str, Tensor]:
        """The parts of one draw of the random groups, the next one; the random numbers are put back."""
        devices = [student.device] if student.is_cuda else []
        values = {}
        for name, part in self.parts.items():
            with torch.random.fork_rng(devices):
                values.update(self._part_values({name: part}, student, *args, **kwargs))
        return values
