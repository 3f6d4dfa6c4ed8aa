"""The total of a training step's losses, which knows what it is the sum of."""
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ['Objectives', 'StepLoss']


class Objectives(NamedTuple):
    """The two parts of a total, each a scalar with its graph; 0 where there is no such loss."""

    supervised: Tensor | int
    distillation: Tensor | int


class StepLoss(Tensor):
    """A scalar loss of a distilled model, made by ``total.as_subclass(StepLoss)``.

    It goes backward like any tensor. What is computed from it is a plain tensor, which no longer knows its parts.

    Attributes:
        objectives: The supervised and the distillation part.
        terms: Log name to value, detached, of each loss that the total adds up.
    """

    objectives: Objectives
    terms: dict[str, Tensor]

    __torch_function__ = torch._C._disabled_torch_function_impl
