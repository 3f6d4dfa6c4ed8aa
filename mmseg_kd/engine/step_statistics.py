"""What one training step of a distilled model says about its distillation."""
import inspect
import math
from collections import OrderedDict

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn
from torch.nn import functional as F

from mmseg_kd.functional.upsampled import Logits, Upsampled, at_full_size
from mmseg_kd.taps import is_auxiliary_head

from .grad_align_conflict import Conflict, inner_products

__all__ = ['StepStatistics']

_LOGITS = ('logits', 'aux_logits')
# Means of this many positions are good to a percent; all positions of a batch would cost as much as the loss.
_POSITIONS = 2**14


class StepStatistics:
    """Watch one training step of a distilled model and keep its statistics, on the device.

    Attached before the step it reads what the step has anyway: the tensors that each term compares, the losses and the
    input of the main classifier. It changes neither gradients nor random numbers. :meth:`close` lets go of the model.

    Args:
        model: A distilled model (``terms``, ``main_classifier``, ``parse_losses``).
    """

    def __init__(self, model: nn.Module):
        self._model = model
        self._features: list[Tensor] = []
        self._means: OrderedDict[str, Tensor] = OrderedDict()
        self._products: OrderedDict[str, Tensor] = OrderedDict()
        self._handles = [term.loss.register_forward_pre_hook(self._at_term(name, term), with_kwargs=True)
                         for name, term in model.terms.items()]
        # Before gradient alignment's own hook, which hands the classifier a view that the other one does not see.
        classifier = main_classifier(model)
        if classifier is not None:
            self._handles.append(classifier.register_forward_pre_hook(self._at_classifier))
        self._handles.append(model.register_forward_hook(self._after_forward))

    def close(self) -> dict[str, float]:
        """Let go of the model and bring the statistics to the host, over all processes; the one synchronisation.

        Returns:
            ``distill.<what>_<term>`` to a number, see :class:`~.distill_statistics.DistillStatisticsHook`.
        """
        for handle in self._handles:
            handle.remove()
        values = {}
        if self._means:
            sums = torch.stack(list(self._means.values()))
            all_reduce(sums, op='sum')
            means = (sums[:, 0] / sums[:, 1]).tolist()
            # 0 / 0: no position had a label.
            values.update({name: value for name, value in zip(self._means, means, strict=True) if value == value})
        if self._products:
            products = torch.stack(list(self._products.values()))
            # Each process has a part of the batch; the sums are those of the whole up to one factor, which cancels.
            all_reduce(products, op='sum')
            cosines = torch.stack([Conflict.of(*each).cosine for each in products]).tolist()
            values.update(zip(self._products, cosines, strict=True))
        return values

    def _at_classifier(self, module: nn.Module, args: tuple) -> None:
        if isinstance(args[0], Tensor) and args[0].requires_grad:
            self._features.append(args[0])

    def _at_term(self, name: str, term: nn.Module):
        signature = inspect.signature(term.loss.forward)

        @torch.no_grad()
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            called = signature.bind(*args, **kwargs).arguments
            if called.get('student') is None or called.get('teacher') is None:
                return
            student, teacher, target, weight = _sampled(
                called['student'], called['teacher'], called.get('target'), called.get('weight'))
            valid = torch.ones_like(student[:, 0], dtype=torch.bool)
            if target is not None and getattr(module, 'ignore_index', None) is not None:
                valid = target != module.ignore_index
            if weight is not None:
                valid &= weight != 0
            count = valid.sum()
            if hasattr(module, 'part_values'):
                # Sums: among several processes a mean would be a share of the mean over all of them.
                for part, value in module.part_values(student, teacher, target, weight, reduction='sum').items():
                    self._add(f'distill.{part}_{name}', value, count)
            if hasattr(module, 'diagnostics'):
                for what, value in module.diagnostics(student, teacher, target).items():
                    self._add(f'distill.{what}_{name}', value * count, count)
            if all(tap in _LOGITS or is_auxiliary_head(tap) for tap in (*term.student_taps, *term.teacher_taps)):
                confidence = (teacher.amax(1) - teacher.logsumexp(1)).exp()
                agree = student.argmax(1) == teacher.argmax(1)
                self._add(f'distill.teacher_confidence_{name}', (confidence * valid).sum(), count)
                self._add(f'distill.agreement_{name}', (agree & valid).sum(), count)
                if target is not None:
                    label = (target >= 0) & (target < student.shape[1]) & valid
                    chosen = student.gather(1, target.clamp(0, student.shape[1] - 1).unsqueeze(1)).squeeze(1)
                    confidence = (chosen - student.logsumexp(1)).exp()
                    self._add(f'distill.label_confidence_{name}', (confidence * label).sum(), label.sum())
        return hook

    def _add(self, name: str, total: Tensor, count: Tensor) -> None:
        # A term with several taps, or against several teachers, speaks several times: the mean over all.
        self._means[name] = self._means.get(name, 0.) + torch.stack([total.float(), count.float()])

    def _after_forward(self, module: nn.Module, args: tuple, losses) -> None:
        if not self._features or not isinstance(losses, dict):
            return
        features = self._features
        # In units of one position of the features: in half precision the mean's share of one would underflow.
        scale = float(features[0].numel() // features[0].shape[1])

        def gradient(loss: Tensor) -> list[Tensor | None]:
            if not isinstance(loss, Tensor) or not loss.requires_grad:
                return [None] * len(features)
            return torch.autograd.grad(loss * scale, features, retain_graph=True, allow_unused=True)

        supervised = gradient(module.parse_losses(losses)[0].objectives.supervised)
        for name, term in module.terms.items():
            # A term that is switched off has a gradient of zeros, and no direction.
            if not term.scale:
                continue
            pairs = [(s, d) for s, d in zip(supervised, gradient(losses[f'distill.loss_{name}']), strict=True)
                     if s is not None and d is not None]
            if pairs:
                self._products[f'distill.supervised_cosine_{name}'] = inner_products(*zip(*pairs, strict=True))


def _sampled(student: Logits, teacher: Logits, *maps: Tensor | None) -> list[Tensor | None]:
    """Logits (N, C, *) and maps (N, *) at an even grid of not too many positions; (N, C) as they are."""
    sides = student.shape[2:]
    positions = student.shape[0] * math.prod(sides)
    if not sides or positions <= _POSITIONS:
        return [at_full_size(student), at_full_size(teacher), *maps]
    stride = math.ceil((positions / _POSITIONS)**(1 / len(sides)))
    grid = (slice(stride // 2, None, stride), ) * len(sides)
    return [_interpolated(each, grid) if isinstance(each, Upsampled) else None if each is None else each[(..., *grid)]
            for each in (student, teacher, *maps)]


def _interpolated(logits: Upsampled, grid: tuple[slice, slice]) -> Tensor:
    """``logits.computed()[..., *grid]`` without computing the rest."""
    def coordinates(side: int, chosen: slice) -> Tensor:
        at = torch.arange(side, device=logits.device)[chosen].float()
        return 2 * at / max(side - 1, 1) - 1 if logits.align_corners else (2 * at + 1) / side - 1
    y, x = (coordinates(side, chosen) for side, chosen in zip(logits.size, grid, strict=True))
    points = torch.stack(torch.meshgrid(x, y, indexing='xy'), dim=-1).expand(len(logits.logits), -1, -1, -1)
    return F.grid_sample(logits.logits.float(), points, padding_mode='border', align_corners=logits.align_corners)


def main_classifier(model: nn.Module) -> nn.Module | None:
    """The layer whose input is the shared features; None in a model without one."""
    try:
        return model.main_classifier()
    except (NotImplementedError, ValueError):
        return None
