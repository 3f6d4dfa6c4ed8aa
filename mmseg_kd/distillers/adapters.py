"""Trained layers between the student's features and the teacher's, which exist only while training."""
from collections.abc import Sequence

from torch import Tensor, nn

from .random_stream import own_random_stream
from .review_fusion import ReviewFusion

__all__ = ['adapter', 'check_adapter']

_KINDS = ('linear', 'review')
_WIDTH = 256


class LinearAdapter(nn.ModuleList):
    """A 1x1 convolution from the student's channels to the teacher's at each tap (FitNet's regressor).

    Args:
        channels: (student, teacher) channels of each tap.
    """

    def __init__(self, channels: Sequence[tuple[int, int]]):
        super().__init__(nn.Conv2d(student, teacher, 1) for student, teacher in channels)

    def forward(self, features: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Map each (N, C, h, w) to the teacher's channels; its size stays, whatever ``sizes`` says."""
        return [layer(each) for layer, each in zip(self, features, strict=True)]


def check_adapter(settings: dict | None, where: str) -> None:
    """Refuse an ``adapter`` that does not exist.

    Raises:
        ValueError: an unknown kind or setting.
    """
    if settings is None:
        return
    known = isinstance(settings, dict) and settings.get('kind') in _KINDS and set(settings) <= (
        {'kind', 'width'} if settings['kind'] == 'review' else {'kind'})
    width = settings.get('width', _WIDTH) if known else None
    if not known or type(width) is not int or width < 1:
        raise ValueError(f"`{where}.adapter`: expected dict(kind='linear'), a 1x1 convolution, or dict(kind='review', "
                         f"width={_WIDTH}), ReviewKD's fusion of several taps, got {settings!r}.")


def adapter(settings: dict, channels: Sequence[tuple[int, int]], name: str) -> nn.Module:
    """Build a term's adapter. Its weights follow from torch's seed and ``name``, and change no other random number.

    Args:
        settings: ``dict(kind='linear')`` or ``dict(kind='review', width=256)``.
        channels: (student, teacher) channels of each tap.
        name: Tells it from other adapters.

    Returns:
        A module called as ``module(features, sizes)`` with the student's features, (N, C, h, w) each, and the sizes
        (h, w) of the teacher's; it returns one map a tap with the teacher's channels.
    """
    with own_random_stream(f'adapter.{name}'):
        if settings['kind'] == 'linear':
            return LinearAdapter(channels)
        return ReviewFusion(channels, settings.get('width', _WIDTH))
