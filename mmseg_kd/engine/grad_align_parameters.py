"""Alignment of two gradients over parameters: exact, at the price of a second backward pass."""
import torch
from mmengine.dist import all_reduce, all_reduce_params
from torch import Tensor, nn
from torch.optim import Optimizer

from .grad_align_conflict import Conflict, inner_products

__all__ = ['SecondGradient']

# Gradients travel in pieces of this size, so that synchronising makes no copy of them all.
_BUCKET_MB = 25


class SecondGradient:
    """The distillation gradient, held beside ``parameter.grad``, which holds the supervised one.

    This is the only memory that alignment adds: one tensor per parameter that distillation reaches.

    Args:
        optimizer: Its parameters that take a gradient are the ones aligned.
    """

    def __init__(self, optimizer: Optimizer):
        self.optimizer = optimizer
        self.gradients: dict[nn.Parameter, Tensor] = {}

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The optimizer's parameters that take a gradient."""
        parameters = (parameter for group in self.optimizer.param_groups for parameter in group['params'])
        return [parameter for parameter in parameters if parameter.requires_grad]

    def swap(self) -> None:
        """Exchange both gradients, so that a backward pass adds to the second one."""
        for parameter in self.parameters:
            first, parameter.grad = parameter.grad, self.gradients.pop(parameter, None)
            if first is not None:
                self.gradients[parameter] = first

    def clear(self) -> None:
        """Forget the second gradient."""
        self.gradients.clear()

    def synchronize(self, group=None) -> None:
        """Average both gradients over the processes of a group.

        A parameter that an objective reaches in one process and not in another counts there as zero, as in DDP.
        """
        parameters = self.parameters
        device = parameters[0].device
        reached = torch.tensor([[parameter.grad is not None, parameter in self.gradients] for parameter in parameters],
                               dtype=torch.int32, device=device)
        all_reduce(reached, op='max', group=group)
        first, second = [], []
        for parameter, (by_supervised, by_distillation) in zip(parameters, reached.tolist(), strict=True):
            if by_supervised:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                first.append(parameter.grad)
            if by_distillation:
                if parameter not in self.gradients:
                    self.gradients[parameter] = torch.zeros_like(parameter)
                second.append(self.gradients[parameter])
        for gradients in (first, second):
            if gradients:
                all_reduce_params(gradients, bucket_size_mb=_BUCKET_MB, op='mean', group=group)

    def align(self, scope: str) -> Conflict | None:
        """Make ``parameter.grad`` the sum of the supervised and the aligned distillation gradient.

        Args:
            scope: ``'shared'``: products and correction over the parameters that both objectives reach; ``'all'``: over
                all parameters, an unreached one counting as zero, which also rescales what only the supervised one
                reaches.

        Returns:
            How they stood; None where they share nothing.
        """
        firsts = {parameter: parameter.grad for parameter in self.parameters if parameter.grad is not None}
        shared = [parameter for parameter in firsts if parameter in self.gradients]
        conflict = None
        if shared:
            both = set(shared)
            products = inner_products([firsts[p] for p in shared], [self.gradients[p] for p in shared])
            if scope == 'all':
                # What only one objective reaches adds nothing to their product, only to the norms.
                for index, gradients in ((1, firsts), (2, self.gradients)):
                    alone = [gradient for parameter, gradient in gradients.items() if parameter not in both]
                    if alone:
                        products[index] += inner_products(alone, alone)[0]
            conflict = Conflict.of(*products)
            factor = 1 + conflict.correction
            for parameter in firsts if scope == 'all' else shared:
                firsts[parameter].mul_(factor.to(firsts[parameter].dtype))
        for parameter, second in self.gradients.items():
            if parameter in firsts:
                firsts[parameter].add_(second)
            else:
                parameter.grad = second
        self.clear()
        return conflict
