"""What a loss is, in the words that every operator understands."""
from typing import NamedTuple, Optional, Tuple

__all__ = ['LossSpec']


class LossSpec(NamedTuple):
    """One loss of the grouped family, or a binary one; the defaults are those that a kind does not read.

    Kinds: 'all' (one group), 'target' ({target}, {rest}), 'rank' (groups by the teacher's ranks), 'random' ({target},
    {what is left}, {random subset}), 'binary' (BinaryKL), 'binary_norm' (BinaryKL-Norm), 'cross_entropy' (with
    labels, no teacher).
    """

    kind: str
    temperature: float
    w_between: float = 0.
    w_within: Tuple[float, ...] = (1., )  #: one per group
    divergence: str = 'forward'
    boundaries: Tuple[int, ...] = ()  #: ranks at which the second and the third group begin; 'rank' alone
    strategy: str = 'best'
    ratio: Optional[float] = None  #: the boundary follows the position, up to the one in ``boundaries``
    keep: float = 1.

    @property
    def needs_target(self) -> bool:
        """Whether the groups depend on labels."""
        return self.kind in ('target', 'random')
