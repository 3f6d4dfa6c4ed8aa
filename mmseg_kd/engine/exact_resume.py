"""Randomness as a function of seed, rank and position, so that a resumed run is the undisturbed one."""
import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from mmseg_kd.registry import HOOKS

__all__ = ['ExactResumeHook']

# Kept apart so that a sample, an iteration and a batch of the same number do not share their random numbers.
_STEP, _SAMPLE, _ORDER = 0, 1, 2
# Where a batch sampler tells no batch size, more samples than any batch has.
_LARGE = 2**20
# When the current epoch began, in the MessageHub and so in the checkpoints: (epoch, iteration).
_EPOCH = 'exact_resume_epoch'


def _seed_host(*entropy: int) -> int:
    """Seed Python, NumPy and torch's CPU generator from a few integers; torch's seed."""
    words = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    torch.default_generator.manual_seed(int(words[2]))
    return int(words[2])


@contextmanager
def seeded(*entropy: int) -> Iterator[None]:
    """Seed for the block; outside of loader workers, whose randomness is only the data's, restore afterwards."""
    if get_worker_info() is not None:
        _seed_host(*entropy)
        yield
        return
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    _seed_host(*entropy)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class _Position(NamedTuple):
    """What a sampler yields, and its position in the stream of samples."""

    index: object
    position: int


class _PositionedBatches:
    """A batch sampler, of whatever kind, whose samples know their positions, and which draws alike in every run.

    A position is the number of the batch times the batch size, plus the place in the batch, so it does not depend on
    how the batch was put together.

    Args:
        batches: The batch sampler.
        size: Its batch size, or an upper bound of it.
        seed: What it draws from the global generators follows from this seed and the number of the batch.
    """

    def __init__(self, batches: Iterable[Sequence], size: int, seed: int):
        self.batches = batches
        self.size = size
        self.seed = seed
        # Number of the next batch, in the run; and how many batches an interrupted epoch has had already.
        self.number = self.skipped = 0

    def __iter__(self) -> Iterator[list[_Position]]:
        batches = None
        while True:
            with seeded(self.seed, _ORDER, self.number):
                # Some draw the order of a whole pass as they begin it.
                batches = iter(self.batches) if batches is None else batches
                batch = next(batches, None)
            if batch is None:
                return
            first = self.number * self.size
            self.number += 1
            if self.skipped:
                self.skipped -= 1
            else:
                yield [_Position(index, first + place) for place, index in enumerate(batch)]

    def __len__(self) -> int:
        return len(self.batches)

    def __getattr__(self, name):
        if 'batches' not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.__dict__['batches'], name)


class _SeededDataset(Dataset):
    """A data set whose augmentations depend only on seed, rank and position."""

    def __init__(self, dataset: Dataset, seed: int, rank: int):
        self.dataset = dataset
        self.seed = seed
        self.rank = rank

    # torch would ask an inner data set for whole batches at once.
    __getitems__ = None

    def __getitem__(self, index):
        if not isinstance(index, _Position):
            return self.dataset[index]
        with seeded(self.seed, _SAMPLE, self.rank, index.position):
            return self.dataset[index.index]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name):
        # Looked up in __dict__ so that unpickling in a spawned worker, before it is filled, does not recurse.
        if 'dataset' not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.__dict__['dataset'], name)


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Make ``--resume`` continue exactly, for any batch sampler, number of loader workers and processes.

    mmengine restores weights, optimizer, schedules and the sampler's position, but no random state. Here nothing has
    to be restored: before each iteration all generators are seeded from (seed, rank, iteration), each training
    sample is augmented under a seed from (seed, rank, position in the stream), and a sampler that draws from the global
    generators does so under a seed from (seed, number of the batch). A run resumed at iteration i then draws
    what the undisturbed run draws. Validation may consume random numbers as it likes. A run of epochs that was stopped
    within an epoch goes on with the rest of that epoch.

    Where that cannot be (an ``IterableDataset``, a loader without batches, or ``fast_forward_on_resume``), a warning
    says so, and the run goes on. ``tools/train.py`` adds this hook to every run, so that runs compared with each other
    draw alike.
    """

    priority = 'VERY_HIGH'
    _batches: _PositionedBatches | None = None

    @property
    def within_epochs(self) -> bool:
        """Whether the run, once it trains, can go on exactly from a checkpoint of the middle of an epoch."""
        return self._batches is not None

    def before_train(self, runner) -> None:
        """Wrap the training data once loop and checkpoint are there and before a worker starts."""
        self._seed, self._rank = int(runner.seed), get_rank()
        self._batches = None
        loader: DataLoader = runner.train_dataloader
        if isinstance(loader.dataset, _SeededDataset):
            self._batches = loader.batch_sampler
            return
        if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
            what = 'an IterableDataset' if isinstance(loader.dataset, IterableDataset) else 'a loader without batches'
            _warn(f'`train_dataloader`: the samples of {what} have no positions')
            return
        sampler = getattr(loader.batch_sampler, 'sampler', loader.sampler)
        configured = (runner.cfg.get('randomness') or {})
        different = configured.get('diff_rank_seed', False)
        if hasattr(sampler, 'seed') and (not different or configured.get('seed') is None):
            # Without a seed in the config the sampler was built with a fresh one; a resumed run has the first run's.
            # All processes share it, whether or not each has a seed of its own.
            sampler.seed = self._seed - (self._rank if different else 0)
        size = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', None) or _LARGE
        self._batches = _PositionedBatches(loader.batch_sampler, size, self._seed)
        # DataLoader refuses new values of these after its construction because iterators may hold the old ones; there
        # is none yet, mmengine's loops make theirs after this hook.
        object.__setattr__(loader, 'batch_sampler', self._batches)
        object.__setattr__(loader, 'dataset', _SeededDataset(loader.dataset, self._seed, self._rank))

    def before_train_epoch(self, runner) -> None:
        """Set the count to where this epoch starts (an iteration-based loop has one, which starts where it resumes)."""
        if self._batches is None:
            return
        loader, loop = runner.train_dataloader, runner.train_loop
        if hasattr(loop, 'dataloader_iterator'):
            # mmengine's iteration-based loop skips by the sampler where it can, and else draws the skipped indices
            # again.
            jumps = getattr(loop, 'fast_forward_on_resume', False)
            if jumps and runner.iter:
                _warn('`train_cfg.fast_forward_on_resume=True`: the order of the samples begins anew')
            redraws = not jumps and not (hasattr(loader.sampler, 'skip') and loader.batch_size)
            self._batches.number = 0 if redraws else runner.iter
            return
        epoch, began = runner.message_hub.get_info(_EPOCH, (None, None))
        if epoch != runner.epoch:
            began = runner.iter
            runner.message_hub.update_info(_EPOCH, (runner.epoch, began))
        self._batches.number, self._batches.skipped = began, runner.iter - began

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Seed what the model draws in this iteration (dropout, stochastic depth)."""
        # torch.manual_seed reaches all devices; a sample is augmented on the host.
        torch.manual_seed(_seed_host(self._seed, _STEP, self._rank, runner.iter))


def _warn(why: str) -> None:
    print_log(f'{why}, so a resumed run draws other random numbers than the undisturbed one. `exact_resume=False` in '
              'the config says that this is meant.', logger='current', level=logging.WARNING)
