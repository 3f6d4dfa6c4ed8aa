"""Random numbers for what stands beside the student and must not change how the student begins."""
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ['own_random_stream']


@contextmanager
def own_random_stream(name: str) -> Iterator[None]:
    """Within the block torch's CPU numbers follow only from its seed and a name; behind it nothing was drawn.

    The order in which a model is built does not change them, and they change no random number that the model draws.
    """
    with torch.random.fork_rng(devices=[]):
        # A stream of its own: the same seed would repeat the numbers that the student's first layer got.
        # Only the CPU generator, the only one that is restored: torch.manual_seed would reach the GPUs as well.
        torch.default_generator.manual_seed(_seed(name))
        yield


def _seed(name: str) -> int:
    entropy = (torch.initial_seed() % 2**64, zlib.crc32(f'mmseg_kd.{name}'.encode()))
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))
