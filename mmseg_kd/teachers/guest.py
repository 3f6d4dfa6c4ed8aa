"""The teacher: a guest in the student's training."""
import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from mmseg_kd.taps import LOGITS, is_module, module_calls, tapped_modules

from .class_map import ClassMap
from .normalization import Renormalize
from .sharding import shard
from .speed import AS_TRAINED, TeacherSpeed

__all__ = ['Teacher']


class Teacher:
    """A frozen model that is not a part of the student.

    It is deliberately no ``nn.Module``, so that assigning it to one registers nothing: it is in no ``state_dict``, no
    optimizer, no EMA copy (copies share it) and no DDP bucket. It is in eval mode as a whole (dropout and BatchNorm
    alike), takes no gradient, and runs under ``no_grad``. Its owner moves it through :meth:`apply_fn`.

    Args:
        model: The built model with its weights.
        logits: Computes the logits from (model, images (N, C, H, W)), or several answers by tap.
        renormalize: Turns the student's images into the teacher's.
        speed: Precision, memory format and compilation.
        has_weights: Whether the weights are trained ones; False: random.
        shard: Whether the processes of a run share the weights, each holding a part (see :func:`~.sharding.shard`).
        classes: Names of the classes of the logits; None: not known.
        num_classes: Number of classes of the logits; None: not known, or there are none.
        no_logits: Why it has no logits; None: it has some.
        features: Runs what the modules need that are to be read, from (model, images, their names); None: ``logits``
            does.
        setting: What names it in the config, for messages.

    Attributes:
        shared: Whether the processes of a run share the weights, and so must run it equally often.
        align_corners: How its logits are upsampled, as for ``F.interpolate``.
        class_map: Which of its classes are which of the student's (see :class:`~.class_map.ClassMap`), for who compares
            its logits; they themselves are over its own classes. None: the same.
    """

    def __init__(self, model: nn.Module, logits: Callable, renormalize: Renormalize, speed: TeacherSpeed = AS_TRAINED,
                 has_weights: bool = True, shard: bool = False, classes: Sequence[str] | None = None,
                 num_classes: int | None = None, no_logits: str | None = None, features: Callable | None = None,
                 setting: str = 'teacher.config'):
        for parameter in model.parameters():  # TorchScript has no requires_grad_ of a whole module
            parameter.requires_grad_(False)
        self.model = speed.prepare_model(model.eval())
        self._logits = speed.prepare_function(logits)
        self._features = features
        self.renormalize = renormalize
        self.speed = speed
        self.has_weights = has_weights
        self.shared = self._to_be_sharded = shard
        self.classes = classes
        self.num_classes = num_classes
        self.no_logits = no_logits
        self.setting = setting
        self.class_map: ClassMap | None = None
        self.align_corners = bool(getattr(model, 'align_corners', False))

    @torch.no_grad()
    def __call__(self, inputs: Tensor, data_samples: Sequence, taps: Collection[str],
                 at: object | None = None) -> dict[str, Tensor]:
        """Run the teacher once.

        Args:
            inputs: Images (N, C, H, W) as the student sees them.
            data_samples: Their data samples; labels are not read.
            taps: What to return: ``'logits'`` and names of modules.
            at: Where to answer, as the student's library says it; passed on to ``logits``. None: everywhere.

        Returns:
            Tap to tensor, without gradient.

        Raises:
            ValueError: a compiled teacher is asked for more than its logits.
        """
        if self.speed.compile is not None and set(taps) - {LOGITS}:
            raise ValueError(f"`teacher.compile`: a compiled teacher gives its 'logits' alone, but a term reads "
                             f'{sorted(set(taps) - {LOGITS})}. Remove `compile`.')
        device = inputs.device if isinstance(inputs, Tensor) else _device_of(inputs)
        parameter = next(self.model.parameters(), None)
        if parameter is not None and parameter.device != device:
            # FSDP moves the student's parameters one by one, which no guest notices.
            self.model.to(device)
        if self._to_be_sharded:
            shard(self.model, device)
            self._to_be_sharded = False
        if not self.renormalize.is_identity or self.speed != AS_TRAINED:
            inputs = self._prepared(inputs, data_samples)
        # Weights in a precision of their own leave nothing to autocast.
        own = nullcontext() if self.speed.dtype is None else torch.autocast(device.type, enabled=False)
        with own:
            return self.run(inputs, taps, at)

    @torch.no_grad()
    def run(self, images: Tensor, taps: Collection[str], at: object | None = None) -> dict[str, Tensor]:
        """As a call, on images that are the teacher's already. Where only modules are read, what they do not need is
        left out as far as ``features`` can."""
        modules = tapped_modules(self.model, taps) if set(taps) - {LOGITS} else {}
        with module_calls(modules) as calls:
            if modules and all(map(is_module, taps)) and self._features is not None:
                self._features(self.model, images, taps)
            else:
                answers = self._logits(self.model, images) if at is None else self._logits(self.model, images, at)
                calls.outputs.update(answers if isinstance(answers, dict) else {LOGITS: answers})
        return calls.outputs

    def _prepared(self, inputs: Tensor, data_samples: Sequence) -> Tensor:
        """Images as the teacher wants them."""
        if not isinstance(inputs, Tensor):
            raise ValueError(f'`{self.setting}`: expected the inputs as one tensor of images, which are normalised or '
                             f'cast for the teacher, got a {type(inputs).__name__}. Take a teacher that sees what the '
                             'student sees.')
        return self.speed.prepare_images(self.renormalize(inputs, data_samples))

    def apply_fn(self, fn) -> None:
        """Follow ``nn.Module._apply`` of the owner: device and dtype moves."""
        self.model._apply(fn)

    def would_change(self, fn) -> bool:
        """Whether :meth:`apply_fn` would move or convert anything."""
        parameter = next(self.model.parameters(), None)
        if parameter is None:
            return False
        with torch.no_grad():
            moved = fn(parameter)
        return (moved.device, moved.dtype) != (parameter.device, parameter.dtype)

    def own_copy(self) -> 'Teacher':
        """A teacher of its own with the same weights, for a copy of the owner that goes elsewhere."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model)
        return other

    def __deepcopy__(self, memo) -> 'Teacher':
        return self

    def __repr__(self) -> str:
        size = sum(parameter.numel() for parameter in self.model.parameters())
        return f'Teacher({type(self.model).__name__}, {size / 1e6:.2f} M parameters, frozen)'


def _device_of(inputs: Mapping | tuple) -> torch.device:
    """Where several inputs are, by name or by place, as plain modules may take them."""
    values = inputs.values() if isinstance(inputs, Mapping) else inputs
    return next((value.device for value in values if isinstance(value, Tensor)), torch.device('cpu'))
