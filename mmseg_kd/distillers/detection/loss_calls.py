"""What a model's own loss modules are called with, collected while a step runs."""
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from torch import Tensor, nn

__all__ = ['LossCall', 'loss_calls', 'module_arguments']


class LossCall(NamedTuple):
    """One call of a loss of mmdet."""

    prediction: Tensor
    target: Tensor
    weight: Tensor | None


@contextmanager
def module_arguments(module: nn.Module) -> Iterator[list[tuple[tuple, dict]]]:
    """Collect positional and named arguments of a module's calls while the block runs."""
    calls: list[tuple[tuple, dict]] = []
    handle = module.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append((args, kwargs)), with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


@contextmanager
def loss_calls(losses: Collection[nn.Module]) -> Iterator[list[list[LossCall]]]:
    """Collect the calls of mmdet's loss modules, ``loss(prediction, target, weight=None, ...)``.

    Yields:
        One list a module, filled as the block runs and to be read after it.
    """
    found: list[list[LossCall]] = [[] for _ in losses]
    with ExitStack() as stack:
        arguments = [stack.enter_context(module_arguments(loss)) for loss in losses]
        yield found
    for calls, read in zip(arguments, found, strict=True):
        read.extend(LossCall(args[0], args[1], args[2] if len(args) > 2 else kwargs.get('weight'))
                    for args, kwargs in calls)
