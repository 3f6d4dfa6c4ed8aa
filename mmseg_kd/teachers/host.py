"""What a teacher must know of the student whose guest it is."""
from collections.abc import Callable
from typing import NamedTuple

from torch import nn

__all__ = ['Host', 'number_of_classes']


def number_of_classes(model: nn.Module) -> int | None:
    """Channels of the logits of a segmentor, or classes of a classifier; None for others, and for unknown heads."""
    head = getattr(model, 'head', None)
    number = getattr(model, 'out_channels', getattr(head, 'num_classes', None))
    return number if isinstance(number, int) else None


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
    def num_classes(self) -> int | None:
        """Number of the student's classes; None: not known."""
        number = number_of_classes(self.student)
        # A single channel means yes or no.
        return None if number is None else max(number, 2)

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
