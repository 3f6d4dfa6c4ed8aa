"""The shell around a loss function: settings in, scalar out."""
import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmseg_kd.functional.checks import check_settings, settings_of


class DistillationLoss(nn.Module):
    """A loss function as a module; the mathematics, its settings and their defaults are the function's.

    A subclass names its ``function`` and whether it needs a target, and is done. Settings are checked here, when the
    module is built, and again by the function. They are plain attributes and may be changed between steps.

    Args:
        loss_weight: factor of the reduced loss.
        **settings: the keyword-only parameters of ``function``.

    Raises:
        ValueError: a setting that the loss does not know, or a value outside its domain.
    """

    function: ClassVar[Callable[..., Tensor]]
    needs_target: bool = False
    #: Whether student and teacher must have the same number of channels.
    compares_channels: ClassVar[bool] = True
    #: Whether it looks at each class by itself, so that a single sigmoid channel is as good as two classes.
    takes_one_channel: ClassVar[bool] = False
    #: Name of each part of the loss to the settings that leave only it, at weight 1; empty: it has no parts.
    parts: ClassVar[dict[str, dict[str, Any]]] = {}
    _defaults: ClassVar[dict[str, Any]]

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        cls._defaults = dict(settings_of(cls.function), loss_weight=1.)
        # For help() and editors: the signature that the settings amount to.
        cls.__signature__ = inspect.Signature([
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
            for name, default in cls._defaults.items()
        ])

    def __init__(self, **settings) -> None:
        super().__init__()
        check_settings(type(self).__name__, tuple(self._defaults), settings)
        for name, default in self._defaults.items():
            setattr(self, name, settings.get(name, default))

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as they are now, without ``loss_weight``: what ``function`` is called with."""
        settings = {}
        for name in self._defaults:
            if name != 'loss_weight':
                settings[name] = getattr(self, name)
        return settings

    def forward(self,
                student: Tensor,
                teacher: Tensor,
                target: Tensor | None = None,
                weight: Tensor | None = None,
                avg_factor: float | None = None) -> Tensor:
        """Loss of the student's logits against the teacher's.

        Args:
            student: (N, C) or (N, C, *) logits.
            teacher: logits of the same shape, without gradient.
            target: (N, *) int64 labels; positions labelled ``ignore_index`` are left out.
            weight: (N, *) factor of each position; 0 leaves it out.
            avg_factor: what the mean divides by instead of the number of valid positions (the convention of mmdet's
                heads); only for the reduction 'mean'.
        """
        settings = self.settings
        if avg_factor is not None:
            if self.reduction != 'mean':
                raise ValueError(f"`avg_factor` must be left out unless reduction is 'mean', got reduction "
                                 f'{self.reduction!r}')
            settings['reduction'] = 'sum'
        loss = type(self).function(student, teacher, target, weight, **settings)
        # A factor of 1 would be two operations on a device, one of them on the way back.
        loss = loss if self.loss_weight == 1 else self.loss_weight * loss
        return loss if avg_factor is None else loss / avg_factor

    def part_values(self,
                    student: Tensor,
                    teacher: Tensor,
                    target: Tensor | None = None,
                    weight: Tensor | None = None,
                    reduction: str = 'mean') -> dict[str, Tensor]:
        """The parts of the loss, each at weight 1 and without ``loss_weight``, without gradient.

        Args:
            student: as for :meth:`forward`, as the other tensors.
            reduction: 'mean', 'sum', or 'none' for (N, *) maps.
        """
        return self._part_values(self.parts, student, teacher, target, weight, reduction)

    @torch.no_grad()
    def _part_values(self, parts, student, teacher, target=None, weight=None, reduction='mean') -> dict[str, Tensor]:
        fixed = {**self.settings, 'reduction': reduction}
        return {
            name: type(self).function(student, teacher, target, weight, **{**fixed, **part})
            for name, part in parts.items()
        }

    def extra_repr(self) -> str:
        return ', '.join(f'{name}={getattr(self, name)!r}' for name in self._defaults)
