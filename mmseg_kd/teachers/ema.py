"""A teacher that is the student's own average (self-distillation)."""
import copy
import math
import weakref

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from .guest import Teacher
from .host import Host, number_of_classes
from .normalization import AS_IT_IS
from .openmmlab import what_features_need

__all__ = ['EmaTeacher', 'build_ema_teacher']

_SETTINGS = ('momentum', 'warmup')
_STEPS = 'steps'


class EmaTeacher(Teacher):
    r"""The exponential moving average of the student's weights, as a teacher.

    After every step of the optimizer, counted from t = 1,

    .. math:: \bar w \leftarrow (1 - m_t) \bar w + m_t w, \qquad m_t = \max\Bigl(m, \frac{1}{t + 1}\Bigr)

    so that it begins as the plain mean of all weights so far (Mean Teacher: Tarvainen and Valpola, NeurIPS 2017); with
    ``warmup=False`` m_t = m. Batch statistics are averaged alike, counters are copied.

    It is a guest like any teacher: in no ``state_dict`` of the student, in eval mode, without gradient. Training saves
    and restores it with what only training needs.

    Args:
        student: The student before it has a teacher; it is copied.
        logits: Computes the logits from (model, images (N, 3, H, W)).
        momentum: m, the share of the newest weights (mmengine's convention; 1 minus the decay of the literature).
        warmup: Whether m_t is larger at first.
    """

    def __init__(self, student: nn.Module, logits, momentum: float, warmup: bool):
        model = copy.deepcopy(student)
        model.teachers = ()
        # It knows at first what the student knows: there is nothing to be checked before training.
        super().__init__(model, logits, AS_IT_IS, has_weights=False, num_classes=number_of_classes(model),
                         features=what_features_need(logits))
        self.momentum = momentum
        self.warmup = warmup
        self.steps: int | None = None
        self._student: weakref.ref | None = None
        self._due = False

    def __call__(self, *args, **kwargs) -> dict[str, Tensor]:
        """As of any teacher.

        Raises:
            ValueError: nothing has started the average.
        """
        if self.steps is None:
            raise ValueError("`teacher`: the average of type='ema' begins with the first training step, the student's "
                             "forward(..., mode='loss') in training mode; or call `start(student)`.")
        return super().__call__(*args, **kwargs)

    @torch.no_grad()
    def start(self, student: nn.Module) -> None:
        """Begin with the student's weights as they are."""
        for average, value in self._pairs(student):
            average.copy_(value)
        self.steps = 0

    def follow(self, student: nn.Module) -> None:
        """Begin, unless that was done, and from now on take in the weights after every step that changed them.

        Call it before each training step. A step counts once, whatever the optimizer is made of; the iterations that
        only accumulate gradients do not count, nor does a step that a ``GradScaler`` skipped.
        """
        self._due = True
        if self._student is not None and self._student() is student:
            return
        if self.steps is None:
            self.start(student)
        watched, me = self._student is not None, weakref.ref(self)
        self._student = weakref.ref(student)
        if watched:
            return

        def after_step(optimizer, args, kwargs) -> None:
            if me() is not None:
                me()._after_step(optimizer)
        # Neither a model nor its teacher is told which optimizer there is.
        handle = register_optimizer_step_post_hook(after_step)
        weakref.finalize(self, handle.remove)

    def _after_step(self, optimizer: torch.optim.Optimizer) -> None:
        student = self._student()
        if not self._due or student is None:
            return
        trained = {id(value) for value in student.parameters() if value.requires_grad}
        theirs = sum(id(value) in trained for group in optimizer.param_groups for value in group['params'])
        # One that is part of another (ZeRO's) has a share of them.
        if 2 * theirs <= len(trained):
            return
        # A fused optimizer is called by a GradScaler for a step that overflowed, and then changes nothing.
        overflow = getattr(optimizer, 'found_inf', None)
        if overflow is not None and bool(overflow):
            return
        self._due = False
        self.update(student)

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Take in the student's weights after a step of the optimizer."""
        self.steps += 1
        share = max(self.momentum, 1 / (self.steps + 1)) if self.warmup else self.momentum
        for average, value in self._pairs(student):
            if average.is_floating_point():
                average.lerp_(value, share)
            else:
                average.copy_(value)

    def _pairs(self, student: nn.Module) -> list[tuple[Tensor, Tensor]]:
        own = self.model.state_dict()
        return [(own[name], value) for name, value in student.state_dict().items()]

    def own_copy(self) -> 'EmaTeacher':
        other = super().own_copy()
        other._student = None
        return other

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed run needs."""
        return {_STEPS: torch.tensor(-1 if self.steps is None else self.steps), **self.model.state_dict()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` returned."""
        steps = int(state[_STEPS])
        self.steps = None if steps < 0 else steps
        self.model.load_state_dict({name: value for name, value in state.items() if name != _STEPS})


def build_ema_teacher(settings: dict, host: Host) -> EmaTeacher:
    """Build the teacher that ``teacher=dict(type='ema', momentum=0.001, warmup=True)`` names.

    Args:
        settings: ``momentum`` and ``warmup``.
        host: What is known of the student.

    Raises:
        ValueError: an unknown setting, or one outside of its domain.
    """
    unknown = set(settings) - set(_SETTINGS)
    if unknown:
        raise ValueError(f"`teacher`: unknown setting {sorted(unknown)} of type='ema'; expected `momentum` and "
                         '`warmup`. It has neither config nor checkpoint, it is made of the student.')
    momentum, warmup = settings.get('momentum', 0.001), settings.get('warmup', True)
    number = isinstance(momentum, (int, float)) and not isinstance(momentum, bool) and math.isfinite(momentum)
    if not number or not 0 < momentum <= 1:
        raise ValueError('`teacher.momentum`: expected a number above 0 and at most 1, the share of the newest weights '
                         f'(0.001 where the literature has a decay of 0.999), got {momentum!r}.')
    if not isinstance(warmup, bool):
        raise ValueError(f'`teacher.warmup`: expected True or False, got {warmup!r}.')
    return EmaTeacher(host.student, host.logits, momentum, warmup)
