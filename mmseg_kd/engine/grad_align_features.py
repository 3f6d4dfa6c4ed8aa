"""Alignment of two gradients at the features that both classifiers share, within one backward pass."""
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.dist import all_reduce
from torch import Tensor, nn

from .grad_align_conflict import Conflict, inner_products

__all__ = ['SharedFeatures']


class SharedFeatures:
    """Watch the features of one forward pass and correct their gradient in its backward pass.

    Each classifier reads the features x through a view of its own, so the gradients of the two branches can be told
    apart before autograd adds them: s from the main classifier, d from the auxiliary one. What goes on below x is
    s + d + c s with the correction c of :class:`~.grad_align_conflict.Conflict`. Losses that join below x pass by.

    Args:
        synchronize: Whether to sum the inner products over the processes of ``group``.
        group: Process group; None: the default one.
    """

    def __init__(self, synchronize: bool = False, group=None):
        self.synchronize = synchronize
        self.group = group
        self.conflict: Conflict | None = None
        self._features: Tensor | None = None
        self._branches: dict[str, Tensor] = {}

    @contextmanager
    def watch(self, main: nn.Module, auxiliary: nn.Module) -> Iterator[None]:
        """Give both classifiers their views while the block runs the forward pass."""
        handles = [main.register_forward_pre_hook(self._at_main),
                   auxiliary.register_forward_pre_hook(self._at_auxiliary)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _at_main(self, module: nn.Module, args: tuple) -> tuple | None:
        if self._features is not None:
            raise ValueError("`optim_wrapper.level='features'`: the main classifier runs more than once in a step, on "
                             "features that have no gradient in common; use level='parameters'.")
        self._features = args[0]
        if not args[0].requires_grad:
            # Everything below is frozen: nothing is shared that could be pulled both ways.
            return None
        args[0].register_hook(self._correct)
        return self._branch('supervised', args)

    def _at_auxiliary(self, module: nn.Module, args: tuple) -> tuple | None:
        return self._branch('distillation', args) if args[0].requires_grad else None

    def _branch(self, name: str, args: tuple) -> tuple:
        view = args[0].view_as(args[0])
        view.register_hook(lambda gradient: self._branches.__setitem__(name, gradient))
        return (view, *args[1:])

    def _correct(self, gradient: Tensor) -> Tensor | None:
        supervised, distillation = self._branches.pop('supervised', None), self._branches.pop('distillation', None)
        if supervised is None or distillation is None:
            return None
        products = inner_products([supervised], [distillation])
        if self.synchronize:
            # Each process has its part of the batch; the sums are those of the whole up to one factor, which cancels.
            all_reduce(products, op='sum', group=self.group)
        self.conflict = Conflict.of(*products)
        return gradient + self.conflict.correction.to(gradient.dtype) * supervised
