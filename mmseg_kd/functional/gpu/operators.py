"""What :func:`..evaluate.loss_of` calls on a GPU."""
import functools
import warnings
from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from ..checks import Inputs
from ..grouped import ByClass, ByLabel, ByRank, GroupedLoss
from ..kinds import GIVEN, RANDOM, ChannelWise, CrossEntropy, Loss, kind_of
from ..upsampled import Upsampled, at_full_size, leaf_of, with_gradient
from . import channels, same_resolution, upsampling
from .tile import MOST_CLASSES, settings_of

__all__ = ['COUPLES', 'READS_HALF', 'channel_wise', 'covers', 'cross_entropy', 'loss', 'runs_on', 'scaled', 'upsamples']

READS_HALF = True  #: whether logits of 16 bits may come as they are
COUPLES = False  #: whether DKD and the coupling term of DGKD have an operator together

_TYPES = (torch.float32, torch.bfloat16, torch.float16)
_REACH = 2**31  # places within an image are 32-bit numbers
_SCALED_AT_ONCE = 1024
_MOST_PROGRAMS = 1024  # about eight for each multiprocessor of a large GPU


@triton.jit
def _kernel(values, upstream, size, rounds, SIZE: tl.constexpr):
    factor = tl.load(upstream)
    # A loss that is summed as it is sends down a 1: nothing to read, nothing to write.
    if factor != 1.0:
        first = tl.program_id(0).to(tl.int64) * rounds * SIZE + tl.arange(0, SIZE)
        for index in range(rounds):
            at = first + index * SIZE
            value = tl.load(values + at, mask=at < size, other=0).to(tl.float32)
            tl.store(values + at, (factor * value).to(values.dtype.element_ty), mask=at < size)


def scaled(gradient: Tensor, upstream: Tensor) -> Tensor:
    """``gradient`` times the scalar ``upstream``, in place, without asking the device what that is.

    The elements of ``gradient`` fill their memory, in any order.
    """
    size = gradient.numel()
    flat = gradient.as_strided((size, ), (1, ))
    pieces = triton.cdiv(size, _SCALED_AT_ONCE)
    # Programs that have nothing to do take their time as well.
    rounds = triton.cdiv(pieces, _MOST_PROGRAMS)
    with _on(gradient.device):
        _kernel[(triton.cdiv(pieces, rounds), )](flat, upstream.float(), size, rounds, SIZE=_SCALED_AT_ONCE)
    return gradient


def covers(loss: Loss, inputs: Inputs) -> bool:
    """Whether there are kernels for such tensors: floating types of up to 32 bits, 32-bit places."""
    student, teacher = leaf_of(inputs.student), leaf_of(inputs.teacher)
    few = isinstance(loss, ChannelWise) or student.shape[1] <= MOST_CLASSES
    return (student.dtype in _TYPES and teacher.dtype in _TYPES and few
            and max(student[0].numel(), teacher[0].numel()) < _REACH)


def upsamples(student: Upsampled, loss: Loss) -> bool:
    """Whether a loss can be computed without the full map. A draw is one number per class and position anyway."""
    return (kind_of(loss) != RANDOM and student.shape[1] <= MOST_CLASSES
            and upsampling.upsamples(tuple(student.logits.shape[2:]), tuple(student.size), student.align_corners))


@functools.lru_cache(maxsize=None)
def runs_on(device: torch.device) -> bool:
    """Whether a kernel can be compiled and run on a device; if not, said once."""
    if device.type == 'cuda' and (torch.version.hip or torch.cuda.get_device_capability(device) < (8, 0)):
        return False
    try:
        return scaled(torch.ones(2, device=device), torch.tensor(3., device=device)).tolist() == [3., 3.]
    except Exception as error:  # Triton raises what it likes, where it lacks a C compiler for example
        warnings.warn(f'the fast losses for {device} are off, since Triton does not work here ({error!r}); the plain '
                      'ones give the same numbers slowly', stacklevel=2)
        return False


def _on(device: torch.device) -> AbstractContextManager:
    """Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == 'cuda' else nullcontext()


def _positions_last(tensor: Tensor) -> Tensor:
    """(N, C, *) as (N, C, P), (N, C) as (1, C, N); a view where the strides allow."""
    if tensor.dim() == 2:
        return tensor.t().unsqueeze(0)
    tensor = tensor.flatten(2)
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape[1:], tensor.stride()[1:], strict=True))
    return tensor if reach < _REACH else tensor.contiguous()


def _map(tensor: Tensor | None, dtype: torch.dtype | None = None) -> Tensor | None:
    return None if tensor is None else tensor.detach().to(dtype or tensor.dtype).contiguous()


def _wants_gradient(student: Tensor) -> bool:
    return torch.is_grad_enabled() and student.requires_grad


@functools.lru_cache(maxsize=64)
def _table(groups: ByClass | ByLabel, num_classes: int, device: torch.device) -> Tensor:
    return groups.table(num_classes, device).view(1, -1, num_classes, 1)


@functools.lru_cache(maxsize=64)
def _on_device(weights: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(weights, dtype=torch.float32, device=device)


def _given(loss: Loss, inputs: Inputs) -> Tensor | None:
    """Groups that the kernels do not form themselves: (images, labels, C, positions) int8, 1 where all are alike."""
    if kind_of(loss) != GIVEN:
        return None
    if isinstance(loss.groups, (ByClass, ByLabel)):
        return _table(loss.groups, inputs.student.shape[1], inputs.student.device)
    teacher = at_full_size(inputs.teacher)
    teacher = teacher if teacher.dtype == torch.float32 else teacher.float()
    groups = loss.groups.map(teacher, inputs.target, loss.temperature)
    return _positions_last(groups.to(torch.int8).contiguous()).unsqueeze(1)


def loss(loss: Loss, inputs: Inputs, divisor: Tensor, plain) -> Tensor:
    """The sum of weight times loss over valid positions, divided by ``divisor``; nothing waits for the device.

    Args:
        loss: the description.
        inputs: with logits of any type that is covered, or logits to be upsampled; gradients reach the student.
        divisor: scalar.
        plain: the same by the plain form, for second derivatives.
    """
    student, teacher = inputs.student, inputs.teacher
    settings = settings_of(loss, student.shape[1])
    rank = None
    if isinstance(loss, GroupedLoss) and isinstance(loss.groups, ByRank):
        rank = _map(loss.groups.boundary_of(inputs.target))
    leaf = leaf_of(student)
    given = _given(loss, inputs)
    maps = dict(
        valid=_map(inputs.valid), weight=_map(inputs.weight, torch.float32), rank=rank, given=given,
        target=_map(inputs.target) if settings.needs_target else None, scale=divisor.float().reciprocal(),
        w_within=None if given is None else _on_device(settings.w_within, leaf.device), settings=settings,
        with_gradient=_wants_gradient(leaf))
    if isinstance(student, Upsampled):
        if not isinstance(teacher, Upsampled):
            teacher = Upsampled(teacher, student.size, student.align_corners)

        def of_small() -> tuple[Tensor, Tensor | None]:
            with _on(leaf.device):
                value, gradient, _ = upsampling.loss_and_gradient(
                    leaf.detach(), teacher.logits, tuple(student.size), (student.align_corners, teacher.align_corners),
                    class_weight=None, **maps)
            return value.float(), gradient

        return with_gradient(leaf, of_small, plain, scaled)
    if max(student[0].numel(), teacher[0].numel()) >= _REACH:  # logits that were upsampled in front of the loss
        return plain()

    def compute() -> tuple[Tensor, Tensor | None]:
        with _on(student.device):
            value, gradient = same_resolution.loss_and_gradient(_positions_last(student.detach()),
                                                                _positions_last(teacher), **maps)
        if gradient is not None:
            gradient = gradient.squeeze(0).t() if student.dim() == 2 else gradient.view(student.shape)
        return value.float(), gradient

    return with_gradient(student, compute, None if settings.needs_draws else plain, scaled)


def cross_entropy(inputs: Inputs, class_weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sum of the cross-entropy over valid positions, and how many of them are classified rightly.

    Args:
        inputs: the student's small logits, to be upsampled, and (N, H, W) labels.
        class_weight: (C,) factor by label, or None.
    """
    logits, target, valid = inputs.student, inputs.target, inputs.valid
    settings = settings_of(CrossEntropy(), logits.shape[1])
    factor, wants_gradient = _map(class_weight, torch.float32), _wants_gradient(logits.logits)
    count = torch.zeros((), dtype=torch.int64, device=logits.device)
    one = torch.ones((), device=logits.device)

    def compute() -> tuple[Tensor, Tensor | None]:
        with _on(logits.device):
            value, gradient, right = upsampling.loss_and_gradient(
                logits.logits.detach(), None, tuple(logits.size), (logits.align_corners, ) * 2, valid=_map(valid),
                weight=None, class_weight=factor, scale=one, target=_map(target), rank=None, given=None, w_within=None,
                settings=settings, with_gradient=wants_gradient)
        count.copy_(right)
        return value.float(), gradient

    def plain() -> Tensor:
        chosen = target.masked_fill(~valid, -100)
        return F.cross_entropy(logits.computed(), chosen, class_weight, ignore_index=-100, reduction='sum')

    return with_gradient(logits.logits, compute, plain, scaled), count


def channel_wise(loss: ChannelWise, inputs: Inputs, divisor: Tensor, plain) -> Tensor:
    """As :func:`loss`, for the loss whose distributions run over positions."""
    student, teacher, leaf = inputs.student, inputs.teacher, leaf_of(inputs.student)
    if isinstance(student, Upsampled):
        teacher = teacher if isinstance(teacher, Upsampled) else Upsampled(teacher, student.size)
        student = student._replace(logits=leaf.detach())
    else:
        student, teacher = _positions_last(student.detach()), _positions_last(teacher)
    valid, weight = inputs.valid.flatten(1).contiguous(), _map(inputs.weight, torch.float32)
    settings, wants_gradient = settings_of(loss, student.shape[1]), _wants_gradient(leaf)

    def compute() -> tuple[Tensor, Tensor | None]:
        with _on(leaf.device):
            value, gradient = channels.loss_and_gradient(
                student, teacher, valid=valid, weight=None if weight is None else weight.flatten(1),
                scale=loss.temperature / (inputs.student.shape[1] * divisor.float()), settings=settings,
                with_gradient=wants_gradient)
        return value.float(), None if gradient is None else gradient.view(leaf.shape)

    return with_gradient(leaf, compute, plain, scaled)
