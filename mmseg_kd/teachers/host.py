"""What a teacher must know of the student whose guest it is."""
from collections.abc import Callable
from typing import NamedTuple

from torch import nn

__all__ = ['Host']


class Host(NamedTuple):
    """The student, as far as building its teachers goes.

    Args:
        student: The student, which has no teacher yet.
        scope: Registry scope in which a config's types are looked up unless it names its own ``default_scope``.
        logits: Computes the logits of a model of the student's library from (model, images (N, C, H, W)).
        head_name: Name of the child that makes logits in models of the student's library.
        logit_dims: Dimensions that logits must have: 4, maps (N, C, h, w), or 2, vectors (N, C); None: either.
    """

    student: nn.Module
    scope: str
    logits: Callable
    head_name: str
    logit_dims: int | None = None

    @property
    def preprocessor(self) -> nn.Module:
        """The student's data preprocessor, which says how its images are normalised."""
        return self.student.data_preprocessor
