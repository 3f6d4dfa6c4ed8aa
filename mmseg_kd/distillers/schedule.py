"""When a distillation term counts, and how much."""
from dataclasses import dataclass

__all__ = ['Schedule', 'read_schedule']


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then full strength, then off.

    The factor depends only on time, so a resumed run continues it without anything being saved. With a warm-up
    of n it grows by 1/n per step and is 1 at the n-th, as in the published code of DKD and GDKD (20 epochs on
    CIFAR-100: the first epoch counts 1/20; 1 epoch on ImageNet: no effect). From ``stop`` on it is 0 (DHKD on ImageNet:
    from the 50th epoch, which is number 49).

    Args:
        warmup: Length of the warm-up; 0: none.
        stop: First step without the term; None: never.
        by_epoch: Whether the steps are epochs; else iterations.
    """

    warmup: int = 0
    stop: int | None = None
    by_epoch: bool = False

    def factor(self, step: int) -> float:
        """Factor in [0, 1] at a step, counted from 0."""
        if self.stop is not None and step >= self.stop:
            return 0.
        return min((step + 1) / self.warmup, 1.) if self.warmup else 1.


def read_schedule(settings: dict | None, where: str) -> Schedule | None:
    """Read a term's ``schedule=dict(warmup=..., stop=..., by_epoch=...)``.

    Args:
        settings: The setting; None: the term always counts in full.
        where: Name of the term, for messages, like ``distill.dkd``.

    Raises:
        ValueError: unknown or missing settings, or values outside of their domain.
    """
    if settings is None:
        return None
    where = f'`{where}.schedule`'
    keys = set(settings) if isinstance(settings, dict) else set()
    if not keys & {'warmup', 'stop'} or keys - {'warmup', 'stop', 'by_epoch'}:
        raise ValueError(f'{where}: expected dict(warmup=..., stop=..., by_epoch=False) with a warm-up, a stop or '
                         f'both, got {settings!r}.')
    warmup, stop = settings.get('warmup', 0), settings.get('stop')
    for name, value, least in (('warmup', warmup, 0), ('stop', stop, 1)):
        if (name == 'warmup' or value is not None) and (type(value) is not int or value < least):
            raise ValueError(f'{where}: expected {name} to be a whole number >= {least}, got {value!r}.')
    if stop is not None and stop <= warmup:
        raise ValueError(f'{where}: expected stop to lie after the warm-up, got warmup={warmup!r}, stop={stop!r}.')
    if not isinstance(settings.get('by_epoch', False), bool):
        raise ValueError(f"{where}: expected by_epoch to be True or False, got {settings['by_epoch']!r}.")
    return Schedule(warmup, stop, settings.get('by_epoch', False))
