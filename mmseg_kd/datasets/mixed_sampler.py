"""Batches of labelled and unlabelled pictures in a fixed ratio."""
from collections.abc import Iterator

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from mmseg_kd.registry import DATA_SAMPLERS

__all__ = ['MixedSampler']


@DATA_SAMPLERS.register_module()
class MixedSampler(Sampler):
    """Draw ``labelled`` pictures with labels, then ``unlabelled`` ones without, and so on: that many of each a batch.

    Each source is shuffled on its own, anew whenever it has been shown once, and shared by all processes. What comes
    where follows only from the seed and the position, so a resumed run continues exactly.

    Args:
        dataset: A :class:`~.unlabelled.WithUnlabelled`; mmengine passes it.
        labelled: Labelled pictures of a batch in one process; together with ``unlabelled`` the loader's ``batch_size``.
        unlabelled: Unlabelled pictures of a batch in one process.
        seed: Seed of the shuffling; None: one that all processes agree on.
        by_epoch: Whether the training loop is epoch-based. An epoch has as many batches as it takes to show the
            labelled pictures once (without any in a batch: the unlabelled ones), as it had before there were others;
            the unlabelled ones go on from epoch to epoch. False: the batches never end, as those of mmengine's
            ``InfiniteSampler``.
        shuffle: False: each source in its own order.

    Raises:
        ValueError: another data set, or numbers that are not a ratio.
    """

    def __init__(self, dataset, labelled: int, unlabelled: int, seed: int | None = None, by_epoch: bool = False,
                 shuffle: bool = True):
        parts = getattr(dataset, 'labelled', None), getattr(dataset, 'unlabelled', None)
        if None in parts:
            raise ValueError("`train_dataloader.sampler`: mmseg_kd.MixedSampler draws from "
                             "dataset=dict(type='mmseg_kd.WithUnlabelled', labelled=..., unlabelled=...), got "
                             f'{type(dataset).__name__}.')
        for name, number in (('labelled', labelled), ('unlabelled', unlabelled)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                raise ValueError(f'`train_dataloader.sampler.{name}`: expected a whole number >= 0, got {number!r}.')
        if not labelled + unlabelled:
            raise ValueError('`train_dataloader.sampler`: expected labelled + unlabelled > 0, which is the batch size.')
        self.sizes = tuple(map(len, parts))
        self.labelled, self.unlabelled = labelled, unlabelled
        self.seed = sync_random_seed() if seed is None else seed
        self.by_epoch = by_epoch
        self.shuffle = shuffle
        self.rank, self.processes = get_dist_info()
        self.epoch = 0
        self._position = 0

    @property
    def batch_size(self) -> int:
        """Pictures of a batch in one process."""
        return self.labelled + self.unlabelled

    def set_epoch(self, epoch: int) -> None:
        """Begin this epoch with the next iteration; of no meaning where batches never end."""
        self.epoch = epoch

    def skip(self, num_samples: int) -> None:
        """Go to an absolute position in this process's endless stream, for resuming."""
        self._position = num_samples

    def __len__(self) -> int:
        """Pictures of an epoch in one process; of an endless stream the size of the data set, as mmengine has it."""
        if not self.by_epoch:
            return sum(self.sizes)
        source = 0 if self.labelled else 1
        number = (self.labelled, self.unlabelled)[source] * self.processes
        return self.batch_size * -(-self.sizes[source] // number)

    def __iter__(self) -> Iterator[int]:
        """Indices of the data set for this process."""
        first, end = (self.epoch * len(self), (self.epoch + 1) * len(self)) if self.by_epoch else (self._position, None)
        orders = [_Orders(size, (self.seed, source), self.shuffle) for source, size in enumerate(self.sizes)]
        position = first
        while position != end:
            batch, place = divmod(position, self.batch_size)
            source = int(place >= self.labelled)
            if source:
                number = batch * self.unlabelled + place - self.labelled
            else:
                number = batch * self.labelled + place
            position += 1
            if not self.by_epoch:
                # A loader that is iterated anew goes on.
                self._position = position
            yield source * self.sizes[0] + orders[source][number * self.processes + self.rank]


class _Orders:
    """An endless sequence: all of ``range(size)`` in one random order, then in another, and so on."""

    def __init__(self, size: int, entropy: tuple[int, ...], shuffle: bool):
        self._size, self._entropy, self._shuffle = size, entropy, shuffle
        self._turn, self._order = None, range(size)

    def __getitem__(self, position: int) -> int:
        turn, place = divmod(position, self._size)
        if self._shuffle and turn != self._turn:
            self._turn = turn
            self._order = np.random.default_rng((*self._entropy, turn)).permutation(self._size)
        return int(self._order[place])
