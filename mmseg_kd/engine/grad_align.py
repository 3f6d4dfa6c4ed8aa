"""Optimizer wrappers that let distillation help the supervised objective and never pull against it."""
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from mmengine.model import is_model_wrapper
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmseg_kd.registry import OPTIM_WRAPPERS
from mmseg_kd.step_loss import Objectives, StepLoss

from .grad_align_conflict import Conflict
from .grad_align_features import SharedFeatures
from .grad_align_parameters import SecondGradient
from .unwrapped import unwrapped

__all__ = ['AmpGradAlignOptimWrapper', 'GradAlignOptimWrapper']

_LEVELS, _SCOPES = ('parameters', 'features'), ('shared', 'all')


class GradAlign:
    """What the wrappers below add to mmengine's; put it before mmengine's class.

    Args:
        level: ``'parameters'``: exact, with a second backward pass. ``'features'``: at the input of the two classifiers
            of a dual head, in the one backward pass.
        scope: With ``level='parameters'``: ``'shared'`` or, as published, ``'all'`` (see :meth:`SecondGradient.align`).

    Raises:
        ValueError: an unknown level or scope, or a model without what the level needs.
    """

    def __init__(self, *args, level: str = 'parameters', scope: str = 'shared', **kwargs):
        super().__init__(*args, **kwargs)
        if level not in _LEVELS:
            raise ValueError(f"`optim_wrapper.level`: expected 'parameters' or 'features', got {level!r}.")
        if scope not in _SCOPES:
            raise ValueError(f"`optim_wrapper.scope`: expected 'shared' or 'all', got {scope!r}.")
        if level == 'features' and scope != 'shared':
            raise ValueError("`optim_wrapper.scope`: level='features' aligns the features that both classifiers share; "
                             f"remove scope={scope!r} or take level='parameters'.")
        self.level = level
        self.scope = scope
        self._second = SecondGradient(self.optimizer)
        self._shared: SharedFeatures | None = None
        self._distributed: DistributedDataParallel | None = None

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Around the forward pass: mmengine's context, and what the level needs of the model."""
        if is_model_wrapper(model) and not isinstance(model, DistributedDataParallel):
            raise ValueError(f'`optim_wrapper.type`: {type(self).__name__} works on one device and with '
                             f'MMDistributedDataParallel, got {type(model).__name__}.')
        self._distributed = model if isinstance(model, DistributedDataParallel) else None
        if self.level == 'features':
            group = self._distributed.process_group if self._distributed is not None else None
            self._shared = SharedFeatures(self._distributed is not None, group)
            local = self._shared.watch(*_classifiers(unwrapped(model)))
        else:
            # DDP would average the sum of both gradients; here each is averaged, before they are compared.
            local = nullcontext() if self._distributed is None else self._distributed.no_sync()
        with super().optim_context(model), local:
            yield

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Divide the loss and its parts by the number of accumulated steps."""
        scaled = super().scale_loss(loss)
        if self.level == 'parameters':
            parts = [super(GradAlign, self).scale_loss(part) for part in _objectives(loss)]
            scaled = scaled.as_subclass(StepLoss)
            scaled.objectives, scaled.terms = Objectives(*parts), loss.terms
        return scaled

    def backward(self, loss: Tensor, **kwargs) -> None:
        """Go backward, and align before an update.

        With accumulation, ``level='parameters'`` accumulates both gradients and aligns them once, so that n small
        batches do what one large batch does; ``level='features'`` aligns within each batch, whose features it sees.
        """
        if self.level == 'features':
            if self._shared is None:
                raise ValueError("`optim_wrapper.level='features'`: the forward pass must run in `optim_context`, as "
                                 '`model.train_step(data, optim_wrapper)` does.')
            super().backward(loss, **kwargs)
            self._log(self._shared.conflict)
            self._shared = None
            return
        count = self._inner_count
        supervised, distillation = _objectives(loss)
        super().backward(supervised, retain_graph=True, **kwargs)
        self._second.swap()
        super().backward(distillation, **kwargs)
        self._second.swap()
        self._inner_count = count + 1
        if self.should_update():
            if self._distributed is not None:
                self._second.synchronize(self._distributed.process_group)
            self._log(self._second.align(self.scope))

    def zero_grad(self, **kwargs) -> None:
        """Forget both gradients."""
        super().zero_grad(**kwargs)
        self._second.clear()

    def _log(self, conflict: Conflict | None) -> None:
        if conflict is not None:
            cosine = conflict.cosine.item()
            self.message_hub.update_scalar('train/align_cosine', cosine)
            self.message_hub.update_scalar('train/align_conflict', float(cosine < 0))


def _objectives(loss: Tensor) -> Objectives:
    """The supervised and the distillation part of a loss.

    Raises:
        ValueError: the loss is not that of a distilled model, or one part is missing.
    """
    if not isinstance(loss, StepLoss):
        raise ValueError('`optim_wrapper.type`: gradient alignment needs the supervised and the distillation loss '
                         "apart, as a distilled model gives them; train one (model.type='mmseg_kd.Distilled...') "
                         "through its train_step, or use type='OptimWrapper'.")
    for name, part in loss.objectives._asdict().items():
        if not isinstance(part, Tensor) or not part.requires_grad:
            raise ValueError(f'`optim_wrapper.type`: gradient alignment has nothing to align: the model has no {name} '
                             "loss with a gradient. Use type='OptimWrapper'.")
    return loss.objectives


def _classifiers(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Main and auxiliary classifier of a dual head that takes the whole distillation.

    Raises:
        ValueError: the model has no dual head, or a term that does not read it.
    """
    auxiliary = getattr(model, 'auxiliary_classifier', None)
    if auxiliary is None:
        raise ValueError("`optim_wrapper.level='features'`: there must be a second classifier on the main one's "
                         "features; give the distilled model dual_head=dict(kind='linear'), or use level='parameters'.")
    others = [name for name, term in model.terms.items() if term.student_tap != 'aux_logits']
    if others:
        raise ValueError("`optim_wrapper.level='features'`: only terms with on='aux_logits' pass the shared features; "
                         f"`distill.{others[0]}.on` is another. Use level='parameters'.")
    return model.main_classifier(), auxiliary


@OPTIM_WRAPPERS.register_module()
class GradAlignOptimWrapper(GradAlign, OptimWrapper):
    r"""Optimizer wrapper that removes from the distillation gradient what points against the supervised one.

    With s the supervised and d the distillation gradient, a step follows

    .. math:: s + d' \quad\text{with}\quad d' = d - \min\Bigl(0, \frac{\langle s, d\rangle}{\langle s, s\rangle}\Bigr) s

    The cosine of s and d is logged as ``align_cosine``, whether they were in conflict as ``align_conflict``.
    Works with gradient accumulation, clipping, EMA, frozen layers, parameter groups and DDP, without
    ``find_unused_parameters``.

    Reference: Yang et al., "Dual-Head Knowledge Distillation", gradient alignment (there over all parameters:
    ``scope='all'``).

    Args:
        level: ``'parameters'``: s and d over the parameters; exact, with a second backward pass and one more gradient
            in memory. ``'features'``: s and d at the input of the two classifiers of a dual head, in the one backward
            pass.
        scope: With ``level='parameters'``: ``'shared'``, the parameters that both objectives reach, or ``'all'``, which
            also scales the main classifier's gradient by 1 - <s, d> / <s, s>.
        **kwargs: Arguments of mmengine's ``OptimWrapper``.

    Raises:
        ValueError: an unknown setting, a model that is not distilled, or one that lacks what the level needs.
    """


@OPTIM_WRAPPERS.register_module()
class AmpGradAlignOptimWrapper(GradAlign, AmpOptimWrapper):
    """:class:`GradAlignOptimWrapper` in automatic mixed precision, on a GPU.

    Both gradients carry the loss scale, which cancels in the projection; inner products are in float32.

    Args:
        **kwargs: Arguments of :class:`GradAlignOptimWrapper` and of mmengine's ``AmpOptimWrapper``.
    """
