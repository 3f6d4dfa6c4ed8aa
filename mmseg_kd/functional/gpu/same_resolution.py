"""A loss of logits of one resolution, tile by tile."""
import torch
import triton
import triton.language as tl
from torch import Tensor

from .arithmetic import total_loss
from .tile import Settings, classes_of, same_resolution_tiling, tile_loss

__all__ = ['given_strides', 'loss_and_gradient']


@triton.jit
def _kernel(student, teacher, gradient, draws, valid, weight, target, rank, given, w_within, scale, sums, positions,
            tiles, z_image, z_class, z_position, v_image, v_class, v_position, g_image, g_class, g_position,
            given_image, given_label, given_class, given_position, temperature, w_between, w_a, w_b, ratio, keep,
            boundary, NUM_CLASSES: tl.constexpr, KIND: tl.constexpr, SETS: tl.constexpr, HAS_ONE: tl.constexpr,
            DIVERGENCE: tl.constexpr, LEADING: tl.constexpr, BY_RATIO: tl.constexpr, GROUPS: tl.constexpr,
            WITH_WEIGHT: tl.constexpr, WITH_TARGET: tl.constexpr, WITH_RANK: tl.constexpr, WITH_DRAWS: tl.constexpr,
            WITH_GRADIENT: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr, WIDTH: tl.constexpr):
    """One tile of WIDTH positions of one image: its sum of losses, and its gradient."""
    # What lies before an image may be more than 32 bits count.
    n = (tl.program_id(0) // tiles).to(tl.int64)
    p = (tl.program_id(0) % tiles) * WIDTH + tl.arange(0, WIDTH)
    # One position per lane: a thread holds its classes in registers, and most sums over them need nobody else. The
    # hint says that a position is aligned to no more than itself; without it a thread would take several neighbours.
    p = tl.multiple_of(p, 1)
    exists = p < positions
    at = n * positions + p
    factor = tl.where(tl.load(valid + at, mask=exists, other=0) != 0, tl.load(scale), 0.0)
    if WITH_WEIGHT:
        factor = tl.where(factor != 0, factor * tl.load(weight + at, mask=exists, other=0), 0.0)
    # What does not count is not read: it may hold anything.
    counts = factor != 0
    labels = tl.full((WIDTH, ), -1, tl.int32)
    if WITH_TARGET:
        labels = tl.load(target + at, mask=counts, other=-1).to(tl.int32)
    boundaries = tl.full((WIDTH, ), 0, tl.int32) + boundary
    if WITH_RANK:
        boundaries = tl.load(rank + at, mask=counts, other=1).to(tl.int32)

    c0, c1 = classes_of(HEAD, TAIL)
    student += n * z_image
    teacher += n * v_image
    gradient += n * g_image
    draws += n * g_image
    read0, read1 = counts[None, :] & (c0 < NUM_CLASSES), counts[None, :] & (c1 < NUM_CLASSES)
    z0 = tl.load(student + (c0 * z_class + p[None, :] * z_position), mask=read0, other=0).to(tl.float32)
    z1 = tl.load(student + (c1 * z_class + p[None, :] * z_position), mask=read1, other=0).to(tl.float32)
    v0 = tl.load(teacher + (c0 * v_class + p[None, :] * v_position), mask=read0, other=0).to(tl.float32)
    v1 = tl.load(teacher + (c1 * v_class + p[None, :] * v_position), mask=read1, other=0).to(tl.float32)
    z_target, v_target = factor, factor
    if WITH_TARGET:
        is_class = counts & (labels >= 0) & (labels < NUM_CLASSES)
        z_target = tl.load(student + (labels * z_class + p * z_position), mask=is_class, other=0).to(tl.float32)
        v_target = tl.load(teacher + (labels * v_class + p * v_position), mask=is_class, other=0).to(tl.float32)
    at0, at1 = c0 * g_class + p[None, :] * g_position, c1 * g_class + p[None, :] * g_position
    draw0, draw1 = z0, z1
    if WITH_DRAWS:
        draw0, draw1 = tl.load(draws + at0, mask=read0, other=1), tl.load(draws + at1, mask=read1, other=1)
    group0, group1 = c0, c1
    if GROUPS > 0:
        rows = given + n * given_image + p[None, :] * given_position
        if WITH_TARGET:
            rows += tl.maximum(labels, 0)[None, :] * given_label
        group0 = tl.load(rows + c0 * given_class, mask=read0, other=0).to(tl.int32)
        group1 = tl.load(rows + c1 * given_class, mask=read1, other=0).to(tl.int32)
    loss, g0, g1, _ = tile_loss(z0, z1, v0, v1, c0, c1, labels, z_target, v_target, boundaries, draw0, draw1, group0,
                                group1, w_within, factor, temperature, w_between, w_a, w_b, ratio, keep, boundary,
                                NUM_CLASSES, KIND, SETS, HAS_ONE, DIVERGENCE, LEADING, BY_RATIO, GROUPS)
    tl.store(sums + tl.program_id(0), total_loss(loss))
    if WITH_GRADIENT:
        kind = gradient.dtype.element_ty
        tl.store(gradient + at0, g0.to(kind), mask=exists[None, :] & (c0 < NUM_CLASSES))
        tl.store(gradient + at1, g1.to(kind), mask=exists[None, :] & (c1 < NUM_CLASSES))


def given_strides(given: Tensor | None) -> tuple[int, int, int, int]:
    """Of groups that are given: 0 along what is the same for all."""
    if given is None:
        return 0, 0, 0, 0
    return tuple(0 if size == 1 else stride for size, stride in zip(given.shape, given.stride(), strict=True))


def loss_and_gradient(student: Tensor, teacher: Tensor, *, valid: Tensor, weight: Tensor | None, scale: Tensor,
                      target: Tensor | None, rank: Tensor | None, given: Tensor | None, w_within: Tensor | None,
                      settings: Settings, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """Sum of scale * weight * loss over valid positions, and its gradient.

    Args:
        student, teacher: (N, C, P) float32, bfloat16 or float16 logits, with any strides.
        valid: (N, P) contiguous bool.
        weight: (N, P) contiguous float32, or None.
        scale: float32 scalar, factor of all.
        target: (N, P) contiguous int64 labels where the groups need them.
        rank: (N, P) contiguous integers, the boundary of each position where it is not the same for all.
        given: (N or 1, labels or 1, C, P or 1) int8 groups where the kernel does not form them.
        w_within: float32 weights of given groups.
        settings: see :class:`.tile.Settings`.
        with_gradient: whether the gradient is wanted.

    Returns:
        A float64 scalar, and (N, C, P) of the student's type; float32 for a float16 student, whose range is too
        small for the gradient of a mean.
    """
    number, num_classes, positions = student.shape
    head, tail, width, warps = same_resolution_tiling(num_classes, given is not None)
    kind = torch.float32 if student.dtype == torch.float16 else student.dtype
    draws = gradient = None
    if settings.needs_draws:
        draws = torch.rand_like(student, dtype=torch.float32)
    if with_gradient:
        # The draws may wait in the gradient's place: a tile reads its own before it writes.
        gradient = draws if draws is not None and kind == torch.float32 else torch.empty_like(student, dtype=kind)
    places = next((each for each in (gradient, draws) if each is not None), student)
    tiles = triton.cdiv(positions, width)
    sums = student.new_empty(number * tiles, dtype=torch.float64)
    _kernel[(number * tiles, )](
        student, teacher, places if gradient is None else gradient, places if draws is None else draws,
        valid.view(torch.uint8), scale if weight is None else weight, valid if target is None else target,
        valid if rank is None else rank, valid if given is None else given, scale if given is None else w_within, scale,
        sums, positions, tiles, *student.stride(), *teacher.stride(), *places.stride(), *given_strides(given),
        *settings.numbers, settings.boundary,
        **settings.constants, WITH_WEIGHT=weight is not None, WITH_TARGET=target is not None,
        WITH_RANK=rank is not None, WITH_DRAWS=draws is not None, WITH_GRADIENT=with_gradient,
        HEAD=head, TAIL=tail, WIDTH=width, num_warps=warps)
    return sums.sum(), gradient
