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
        head_name: Name of the child that makes logits in models of the student's library; None: not known.
        logit_dims: Dimensions that logits must have: 4, maps (N, C, h, w), or 2, vectors (N, C); None: either.
        images: How the images of a student without data preprocessor are normalised, see
            :class:`~.network.ImageFormat`; None: not known.
    """

    student: nn.Module
    scope: str
    logits: Callable
    head_name: str | None = None
    logit_dims: int | None = None
    images: object | None = None

    @property
    def preprocessor(self) -> object:
        """What says how the student's images are normalised: its data preprocessor, or ``images``.

        Raises:
            ValueError: nothing says it, and the teacher has a normalisation of its own.
        """
        known = getattr(self.student, 'data_preprocessor', self.images)
        if known is None:
            raise ValueError('`images`: the teacher has a normalisation of its own, so that of the inputs must be '
                             'known; give images=dict(mean=[...], std=[...], scale=255.) as the inputs were made.')
        return known
