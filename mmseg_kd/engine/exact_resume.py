"""Randomness as a function of seed, rank and position, so that a resumed run is the undisturbed one."""
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, get_worker_info

from mmseg_kd.registry import HOOKS

__all__ = ['ExactResumeHook']

# Kept apart so that a sample and an iteration of the same number do not share their random numbers.
_STEP, _SAMPLE = 0, 1


def _seed_host(*entropy: int) -> int:
    """Seed Python, NumPy and torch's CPU generator from a few integers; torch's seed."""
    words = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    torch.default_generator.manual_seed(int(words[2]))
    return int(words[2])


@contextmanager
def seeded(*entropy: int) -> Iterator[None]:
    """Seed for the block; outside of loader workers, whose randomness is the data's alone, restore afterwards."""
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


class _Position(int):
    """A data set's index that knows its position in the stream of samples."""

    position: int

    def __new__(cls, index: int, position: int):
        self = super().__new__(cls, index)
        self.position = position
        return self

    def __reduce__(self):
        return _Position, (int(self), self.position)


class _PositionedSampler(Sampler):
    """Counts the samples that a sampler yields."""

    def __init__(self, sampler: Sampler):
        self.sampler = sampler
        self.position = 0

    def __iter__(self):
        for index in self.sampler:
            self.position += 1
            yield _Position(index, self.position - 1)

    def __len__(self) -> int:
        return len(self.sampler)

    def __getattr__(self, name):
        return getattr(self.__dict__['sampler'], name)


class _SeededDataset(Dataset):
    """A data set whose augmentations depend on seed, rank and position alone."""

    def __init__(self, dataset: Dataset, seed: int, rank: int):
        self.dataset = dataset
        self.seed = seed
        self.rank = rank

    def __getitem__(self, index):
        with seeded(self.seed, _SAMPLE, self.rank, index.position):
            return self.dataset[int(index)]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name):
        # Looked up in __dict__ so that unpickling in a spawned worker, before it is filled, does not recurse.
        if 'dataset' not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.__dict__['dataset'], name)


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Make ``--resume`` continue exactly, for any number of loader workers and processes.

    mmengine restores weights, optimizer, schedules and the sampler's position, but no random state. Here nothing has
    to be restored: before each iteration all generators are seeded from (seed, rank, iteration), and each training
    sample is augmented under a seed from (seed, rank, position in the stream). A run resumed at iteration i then draws
    what the undisturbed run draws. Validation may consume random numbers as it likes. ``tools/train.py`` adds this
    hook to every run, so that runs compared with each other draw alike.

    Raises:
        ValueError: the training loader's batches are not made by torch's ``BatchSampler``, whose samples can be
            counted.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner) -> None:
        """Wrap the training data once loop and checkpoint are there and before a worker starts."""
        self._seed, self._rank = int(runner.seed), get_rank()
        loader: DataLoader = runner.train_dataloader
        if isinstance(loader.dataset, _SeededDataset):
            return
        if type(loader.batch_sampler) is not BatchSampler:
            raise ValueError(
                '`train_dataloader.batch_sampler`: ExactResumeHook counts the samples of a torch BatchSampler, got '
                f'{type(loader.batch_sampler).__name__}. Use `sampler` with `batch_size`, or leave the hook out '
                '(custom_hooks) and accept that a resumed run draws other random numbers.')
        if runner.cfg.get('randomness', {}).get('diff_rank_seed', False) is False and hasattr(loader.sampler, 'seed'):
            # Without a seed in the config the sampler was built with a fresh one; a resumed run has the first run's.
            loader.sampler.seed = self._seed
        self._sampler = _PositionedSampler(loader.sampler)
        loader.batch_sampler.sampler = self._sampler
        # DataLoader refuses a new `dataset` after its construction because iterators may hold the old one; there is
        # none yet, mmengine's loops make theirs after this hook.
        object.__setattr__(loader, 'dataset', _SeededDataset(loader.dataset, self._seed, self._rank))

    def before_train_epoch(self, runner) -> None:
        """Set the count to where this epoch starts (an iteration-based loop has one, which starts where it resumes)."""
        loader = runner.train_dataloader
        # mmengine's iteration-based loop skips by the sampler where it can, and else draws the skipped indices again.
        redraws = hasattr(runner.train_loop, 'dataloader_iterator') and not hasattr(loader.sampler, 'skip')
        self._sampler.position = 0 if redraws else runner.iter * loader.batch_size

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Seed what the model draws in this iteration (dropout, stochastic depth)."""
        # torch.manual_seed reaches all devices; a sample is augmented on the host.
        torch.manual_seed(_seed_host(self._seed, _STEP, self._rank, runner.iter))
