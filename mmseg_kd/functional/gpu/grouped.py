"""The grouped divergence of a tile of positions: value and gradient from one visit to the logits.

A tile is (classes, positions). Its classes come in two parts, the largest power of two below their number and what is
left, since Triton's tiles have only powers of two: 19 classes take 16 + 4 rows instead of 32, 150 take 128 + 32
instead of 256. Every step below is done to both parts (``0``, ``1``), the sums over them are joined.

The groups that a kernel forms itself are at most one class by itself (``one``: the target, or the teacher's first) and
one or two sets, A and B. A class by itself has nothing within. Any other groups are given (:func:`given_tile`).
"""
import triton
import triton.language as tl

from ..topk import NEARLY_NOTHING
from .arithmetic import LN_2, LOG2_E, exp2, kl_term

__all__ = ['first_of_largest', 'given_tile', 'grouped_tile', 'k_by_ratio', 'leading']

_NEARLY_NOTHING = tl.constexpr(NEARLY_NOTHING)
_NO_CLASS = tl.constexpr(2**30)


@triton.jit
def _first(found0, found1, c0, c1):
    """The first class of those that are found, (P,)."""
    return tl.minimum(tl.min(tl.where(found0, c0, _NO_CLASS), 0), tl.min(tl.where(found1, c1, _NO_CLASS), 0))


@triton.jit
def _count(found0, found1):
    return tl.sum(found0.to(tl.int32), 0) + tl.sum(found1.to(tl.int32), 0)


@triton.jit
def first_of_largest(u0, u1, c0, c1):
    """The class of rank 0, (P,): the first of the largest logits."""
    largest = tl.maximum(tl.max(u0, 0), tl.max(u1, 0))
    return _first(u0 == largest[None, :], u1 == largest[None, :], c0, c1)


@triton.jit
def leading(u0, u1, c0, c1, boundary):
    """Whether a class ranks below ``boundary``, in two parts; equal logits rank in the order of the classes.

    Args:
        u0, u1: (C, P) logits, or their negatives where the lowest shall lead; -inf where there is no class.
        c0, c1: (C, 1) their classes.
        boundary: (P,) int32, 1 .. C - 1.
    """
    threshold = tl.full(boundary.shape, float('inf'), tl.float32)
    # How many classes are above the threshold, and how many at or above it.
    above, reached = tl.zeros_like(boundary), tl.zeros_like(boundary)
    for _ in range(tl.max(boundary, 0)):
        u = tl.maximum(
            tl.max(tl.where(u0 < threshold[None, :], u0, float('-inf')), 0),
            tl.max(tl.where(u1 < threshold[None, :], u1, float('-inf')), 0))
        equal = _count(u0 == u[None, :], u1 == u[None, :])
        more = reached < boundary
        threshold, above = tl.where(more, u, threshold), tl.where(more, reached, above)
        reached += tl.where(more, equal, 0)
    # Of those at the threshold the first ``left`` are inside, up to class ``last``.
    left = tl.where(reached > boundary, boundary - above, 0)
    last = tl.where(reached > boundary, -1, _NO_CLASS)
    for index in range(tl.max(left, 0)):
        after = _first((u0 == threshold[None, :]) & (c0 > last[None, :]), (u1 == threshold[None, :]) &
                       (c1 > last[None, :]), c0, c1)
        last = tl.where(index < left, after, last)
    return ((u0 > threshold[None, :]) | ((u0 == threshold[None, :]) & (c0 <= last[None, :])),
            (u1 > threshold[None, :]) | ((u1 == threshold[None, :]) & (c1 <= last[None, :])))


@triton.jit
def k_by_ratio(v0, v1, c0, c1, ratio, k_max, temperature, NUM_CLASSES: tl.constexpr):
    """As :func:`mmseg_kd.functional.topk.k_by_ratio`, (P,) int32: class by class, the smallest logit first.

    Args:
        v0, v1: (C, P) logits; +inf where there is no class.
    """
    previous = tl.minimum(tl.min(v0, 0), tl.min(v1, 0))
    smaller, boundary = tl.zeros_like(previous), tl.zeros(previous.shape, tl.int32)
    for below in range(NUM_CLASSES):
        u = tl.minimum(tl.min(v0, 0), tl.min(v1, 0))
        # The sum of all smaller probabilities relative to this one; never 0 unless there is none.
        relative = (smaller + 1.0) * exp2((previous - u) * LOG2_E / temperature)
        smaller = tl.where(below > 0, tl.maximum(relative, _NEARLY_NOTHING), 0.0)
        # count >= ratio * (1 + smaller), without the sum that would swallow a small one
        leads = (boundary == 0) & (below + 1 - ratio >= ratio * smaller)
        boundary = tl.where(leads, NUM_CLASSES - below, boundary)
        taken = _first(v0 == u[None, :], v1 == u[None, :], c0, c1)
        v0 = tl.where(c0 == taken[None, :], float('inf'), v0)
        v1 = tl.where(c1 == taken[None, :], float('inf'), v1)
        previous = u
    return tl.minimum(tl.maximum(boundary, 1), k_max)


@triton.jit
def _own(in_a, of_a, of_b, SETS: tl.constexpr):
    """What a class has of its set: (P,) vectors ``of_a``, ``of_b`` as a (C, P) tile."""
    if SETS == 1:
        return of_a[None, :]
    else:
        return tl.where(in_a, of_a[None, :], of_b[None, :])


@triton.jit
def _largest(x0, x1, in_a0, in_a1, away, SETS: tl.constexpr):
    """The largest logit of each set, -inf for an empty one; classes that are ``away`` count for nothing."""
    if SETS == 1:
        of_a = tl.maximum(tl.max(x0, 0), tl.max(x1, 0))
        return of_a, of_a
    else:
        of_a = tl.maximum(tl.max(tl.where(in_a0, x0, away), 0), tl.max(tl.where(in_a1, x1, away), 0))
        of_b = tl.maximum(tl.max(tl.where(in_a0, away, x0), 0), tl.max(tl.where(in_a1, away, x1), 0))
        return tl.where(of_a == away, float('-inf'), of_a), tl.where(of_b == away, float('-inf'), of_b)


@triton.jit
def _sums(x0, x1, in_a0, in_a1, SETS: tl.constexpr):
    """The sum over each set of tiles that are 0 elsewhere."""
    if SETS == 1:
        of_a = tl.sum(x0, 0) + tl.sum(x1, 0)
        return of_a, of_a
    else:
        of_a = tl.sum(tl.where(in_a0, x0, 0.0), 0) + tl.sum(tl.where(in_a1, x1, 0.0), 0)
        of_b = tl.sum(tl.where(in_a0, 0.0, x0), 0) + tl.sum(tl.where(in_a1, 0.0, x1), 0)
        return of_a, of_b


@triton.jit
def _relative(x0, x1, in_a0, in_a1, lead_a, lead_b, bits, SETS: tl.constexpr):
    """(logit - lead of its set) / T, in units of ln 2. The difference is exact, however large the logits are."""
    # An empty set has no class that its lead could matter to, but one that is away must stay there.
    lead_a = tl.where(lead_a == float('-inf'), 0.0, lead_a)
    lead_b = tl.where(lead_b == float('-inf'), 0.0, lead_b)
    return (x0 - _own(in_a0, lead_a, lead_b, SETS)) * bits, (x1 - _own(in_a1, lead_a, lead_b, SETS)) * bits


@triton.jit
def _masses(x_one, lead_a, lead_b, sum_a, sum_b, per_t, SETS: tl.constexpr, HAS_ONE: tl.constexpr):
    """Masses of {one}, A, B and their logarithms; 0 and 0 for those that are empty or not there."""
    low = float('-inf')
    top = lead_a
    if SETS == 2:
        top = tl.maximum(top, lead_b)
    if HAS_ONE:
        top = tl.maximum(top, x_one)
    log_a = tl.where(lead_a > low, (lead_a - top) * per_t, 0.0)
    mass_a = tl.where(lead_a > low, sum_a * exp2(log_a * LOG2_E), 0.0)
    total = mass_a
    none = tl.zeros_like(log_a)
    log_b, mass_b, log_one, mass_one = none, none, none, none
    if SETS == 2:
        log_b = tl.where(lead_b > low, (lead_b - top) * per_t, 0.0)
        mass_b = tl.where(lead_b > low, sum_b * exp2(log_b * LOG2_E), 0.0)
        total += mass_b
    if HAS_ONE:
        log_one = (x_one - top) * per_t
        mass_one = exp2(log_one * LOG2_E)
        total += mass_one
    log_total = tl.log(total)
    log_a = tl.where(lead_a > low, log_a + tl.log(sum_a) - log_total, 0.0)
    if SETS == 2:
        log_b = tl.where(lead_b > low, log_b + tl.log(sum_b) - log_total, 0.0)
    return mass_one / total, mass_a / total, mass_b / total, log_one - log_total, log_a, log_b


@triton.jit
def _between(z_one, v_one, lead_za, lead_va, lead_zb, lead_vb, sum_za, sum_va, sum_zb, sum_vb, per_t,
             SETS: tl.constexpr, HAS_ONE: tl.constexpr):
    """Divergence of the masses, and for {one}, A, B the student's mass less the teacher's."""
    z0, za, zb, log_z0, log_za, log_zb = _masses(z_one, lead_za, lead_zb, sum_za, sum_zb, per_t, SETS, HAS_ONE)
    v0, va, vb, log_v0, log_va, log_vb = _masses(v_one, lead_va, lead_vb, sum_va, sum_vb, per_t, SETS, HAS_ONE)
    divergence = kl_term(va, za, log_va - log_za)
    if SETS == 2:
        divergence += kl_term(vb, zb, log_vb - log_zb)
    if HAS_ONE:
        divergence += kl_term(v0, z0, log_v0 - log_z0)
    d0, da, db = z0 - v0, za - va, zb - vb
    # The leading group's difference is what the others lack: two masses near 1 have lost its digits.
    one_leads, a_leads = (v0 >= va) & (v0 >= vb), va >= vb
    return (divergence, tl.where(one_leads, -(da + db), d0), tl.where(~one_leads & a_leads, -(d0 + db), da),
            tl.where(~one_leads & ~a_leads, -(d0 + da), db))


@triton.jit
def _all_but_certain(p0, p1, g0, g1, in_a0, in_a1, SETS: tl.constexpr):
    """``g`` with the class that holds more than half of its set at minus the sum of the others.

    A divergence within a set has a gradient that sums to 0, and the difference of two probabilities near 1 has lost the
    digits that the others still have.
    """
    certain0, certain1 = p0 > 0.5, p1 > 0.5
    g0, g1 = tl.where(certain0, 0.0, g0), tl.where(certain1, 0.0, g1)
    rest_a, rest_b = _sums(g0, g1, in_a0, in_a1, SETS)
    g0 = tl.where(certain0, -_own(in_a0, rest_a, rest_b, SETS), g0)
    g1 = tl.where(certain1, -_own(in_a1, rest_a, rest_b, SETS), g1)
    return g0, g1


@triton.jit
def grouped_tile(z0, z1, v0, v1, c0, c1, in_a0, in_a1, one, z_one, v_one, factor, temperature, w_between, w_a, w_b,
                 NUM_CLASSES: tl.constexpr, SETS: tl.constexpr, HAS_ONE: tl.constexpr, DIVERGENCE: tl.constexpr):
    """factor * L, (P,), and factor * dL/dz in two parts.

    The formulas are those of :func:`mmseg_kd.functional.grouped.grouped_kl`.

    Args:
        z0, z1, v0, v1: the parts of student and teacher, (C, P) float32 logits; anything where there is no class.
        c0, c1: (C, 1) indices of their classes.
        in_a0, in_a1: (C, P) whether a class is in A rather than B; not read for one set.
        one, z_one, v_one: (P,) the class by itself and its logits; not read where there is none.
        factor: (P,) what each position counts.
        temperature, w_between: T and the weight between the groups.
        w_a, w_b: weights within the sets.
        SETS: 1 or 2.
        HAS_ONE: whether there is a class by itself.
        DIVERGENCE: within the sets, 0 forward, 1 both, 2 reverse.
    """
    per_t = 1.0 / temperature
    # What is in no set goes so far below that its probability is 0, and its quotient in units of T is still finite.
    away = -1e30 * tl.minimum(temperature, 1.0)
    z1, v1 = tl.where(c1 < NUM_CLASSES, z1, away), tl.where(c1 < NUM_CLASSES, v1, away)
    if HAS_ONE:
        z0, z1 = tl.where(c0 == one[None, :], away, z0), tl.where(c1 == one[None, :], away, z1)
        v0, v1 = tl.where(c0 == one[None, :], away, v0), tl.where(c1 == one[None, :], away, v1)
    lead_za, lead_zb = _largest(z0, z1, in_a0, in_a1, away, SETS)
    lead_va, lead_vb = _largest(v0, v1, in_a0, in_a1, away, SETS)
    z0, z1 = _relative(z0, z1, in_a0, in_a1, lead_za, lead_zb, per_t * LOG2_E, SETS)
    v0, v1 = _relative(v0, v1, in_a0, in_a1, lead_va, lead_vb, per_t * LOG2_E, SETS)
    q0, q1, p0, p1 = exp2(z0), exp2(z1), exp2(v0), exp2(v1)
    d0, d1 = v0 - z0, v1 - z1
    sum_za, sum_zb = _sums(q0, q1, in_a0, in_a1, SETS)
    sum_va, sum_vb = _sums(p0, p1, in_a0, in_a1, SETS)
    # The 1 keeps the logarithm of an empty set harmless; a lead that is not a number is not an empty set.
    low = float('-inf')
    sum_za, sum_va = tl.where(lead_za == low, 1.0, sum_za), tl.where(lead_va == low, 1.0, sum_va)
    sum_zb, sum_vb = tl.where(lead_zb == low, 1.0, sum_zb), tl.where(lead_vb == low, 1.0, sum_vb)
    shift_a, shift_b = tl.log(sum_va) - tl.log(sum_za), tl.log(sum_vb) - tl.log(sum_zb)
    cross_a, cross_b = shift_a, shift_b
    if DIVERGENCE > 0:
        cross_a, cross_b = _sums(q0 * d0, q1 * d1, in_a0, in_a1, SETS)
        cross_a, cross_b = cross_a * LN_2 / sum_za - shift_a, cross_b * LN_2 / sum_zb - shift_b
    per_za, per_zb, per_va, per_vb = 1.0 / sum_za, 1.0 / sum_zb, 1.0 / sum_va, 1.0 / sum_vb

    # q and p, the probabilities of student and teacher in the set; d, log(p / q)
    q0, q1 = q0 * _own(in_a0, per_za, per_zb, SETS), q1 * _own(in_a1, per_za, per_zb, SETS)
    p0, p1 = p0 * _own(in_a0, per_va, per_vb, SETS), p1 * _own(in_a1, per_va, per_vb, SETS)
    d0, d1 = d0 * LN_2 - _own(in_a0, shift_a, shift_b, SETS), d1 * LN_2 - _own(in_a1, shift_a, shift_b, SETS)
    if DIVERGENCE == 0:
        term0, term1 = kl_term(p0, q0, d0), kl_term(p1, q1, d1)
        g0, g1 = _all_but_certain(p0, p1, q0 - p0, q1 - p1, in_a0, in_a1, SETS)
    else:
        term0, term1 = kl_term(q0, p0, -d0), kl_term(q1, p1, -d1)
        g0, g1 = _all_but_certain(
            q0, q1, q0 * (_own(in_a0, cross_a, cross_b, SETS) - d0), q1 * (_own(in_a1, cross_a, cross_b, SETS) - d1),
            in_a0, in_a1, SETS)
        if DIVERGENCE == 1:
            forward0, forward1 = _all_but_certain(p0, p1, q0 - p0, q1 - p1, in_a0, in_a1, SETS)
            term0, term1 = 0.5 * (term0 + kl_term(p0, q0, d0)), 0.5 * (term1 + kl_term(p1, q1, d1))
            g0, g1 = 0.5 * (g0 + forward0), 0.5 * (g1 + forward1)
    within_a, within_b = _sums(term0, term1, in_a0, in_a1, SETS)
    loss = w_a * within_a
    if SETS == 2:
        loss += w_b * within_b

    if HAS_ONE or SETS == 2:
        between, more_one, more_a, more_b = _between(z_one, v_one, lead_za, lead_va, lead_zb, lead_vb, sum_za, sum_va,
                                                     sum_zb, sum_vb, per_t, SETS, HAS_ONE)
        loss = temperature * temperature * factor * (loss + w_between * between)
        # A loss that is not a number has a gradient that is none: nobody shall step on it unseen.
        scale = temperature * factor + 0.0 * loss
        more_a, more_b = scale * w_between * more_a, scale * w_between * more_b
        w_a, w_b = scale * w_a, scale * w_b
        g0 = _own(in_a0, more_a, more_b, SETS) * q0 + _own(in_a0, w_a, w_b, SETS) * g0
        g1 = _own(in_a1, more_a, more_b, SETS) * q1 + _own(in_a1, w_a, w_b, SETS) * g1
        if HAS_ONE:
            more_one = scale * w_between * more_one
            g0 = tl.where(c0 == one[None, :], more_one[None, :], g0)
            g1 = tl.where(c1 == one[None, :], more_one[None, :], g1)
    else:
        loss = temperature * temperature * factor * loss
        scale = temperature * factor * w_a + 0.0 * loss
        g0, g1 = scale[None, :] * g0, scale[None, :] * g1
    return loss, g0, g1


@triton.jit
def _sum_of(member0, member1, x0, x1):
    return tl.sum(tl.where(member0, x0, 0.0), 0) + tl.sum(tl.where(member1, x1, 0.0), 0)


@triton.jit
def _lead_of(member0, member1, x0, x1):
    """The largest entry of the members, and 0 where there is none."""
    low = float('-inf')
    lead = tl.maximum(tl.max(tl.where(member0, x0, low), 0), tl.max(tl.where(member1, x1, low), 0))
    return tl.where(lead == low, 0.0, lead)


@triton.jit
def _within(p0, p1, q0, q1, d0, d1, member0, member1, DIVERGENCE: tl.constexpr):
    """Divergence within a group, and its gradient over T in two parts; p, q, d are 0 outside.

    The class with more than half of the group gets minus the sum of the others: see :func:`_all_but_certain`.
    """
    if DIVERGENCE == 0:
        value = _sum_of(member0, member1, kl_term(p0, q0, d0), kl_term(p1, q1, d1))
        g0, g1 = _all_but_certain(p0, p1, q0 - p0, q1 - p1, member0, member1, 1)
    else:
        value = _sum_of(member0, member1, kl_term(q0, p0, -d0), kl_term(q1, p1, -d1))
        # KL(q || p) = sum of q log(q / p)
        mean = -_sum_of(member0, member1, q0 * d0, q1 * d1)
        g0, g1 = _all_but_certain(q0, q1, q0 * (-d0 - mean[None, :]), q1 * (-d1 - mean[None, :]), member0, member1, 1)
        if DIVERGENCE == 1:
            value = 0.5 * (value + _sum_of(member0, member1, kl_term(p0, q0, d0), kl_term(p1, q1, d1)))
            forward0, forward1 = _all_but_certain(p0, p1, q0 - p0, q1 - p1, member0, member1, 1)
            g0, g1 = 0.5 * (g0 + forward0), 0.5 * (g1 + forward1)
    return value, g0, g1


@triton.jit
def given_tile(z0, z1, v0, v1, c0, c1, group0, group1, w_within, factor, temperature, w_between,
               NUM_CLASSES: tl.constexpr, GROUPS: tl.constexpr, DIVERGENCE: tl.constexpr):
    """As :func:`grouped_tile` for groups that are given: one after the other, so that their number does not matter.

    Args:
        group0, group1: (C, P) int32 groups, 0 .. GROUPS - 1.
        w_within: points to the weights within the groups, float32.
    """
    per_t = 1.0 / temperature
    bits = per_t * LOG2_E
    is_class0, is_class1 = c0 < NUM_CLASSES, c1 < NUM_CLASSES
    top_z, top_v = _lead_of(is_class0, is_class1, z0, z1), _lead_of(is_class0, is_class1, v0, v1)
    total_z = _sum_of(is_class0, is_class1, exp2((z0 - top_z[None, :]) * bits), exp2((z1 - top_z[None, :]) * bits))
    total_v = _sum_of(is_class0, is_class1, exp2((v0 - top_v[None, :]) * bits), exp2((v1 - top_v[None, :]) * bits))
    # The group that leads with the teacher: its mass has lost the digits that those of the others still have.
    leader, largest = tl.zeros(factor.shape, tl.int32), tl.zeros_like(factor)
    for g in range(GROUPS):
        mass = _sum_of(is_class0 & (group0 == g), is_class1 & (group1 == g), exp2((v0 - top_v[None, :]) * bits),
                       exp2((v1 - top_v[None, :]) * bits))
        leader = tl.where(mass > largest, g, leader)
        largest = tl.maximum(mass, largest)

    loss, between, others = tl.zeros_like(factor), tl.zeros_like(factor), tl.zeros_like(factor)
    out0, out1, leading0, leading1 = tl.zeros_like(z0), tl.zeros_like(z1), tl.zeros_like(z0), tl.zeros_like(z1)
    for g in range(GROUPS):
        member0, member1 = is_class0 & (group0 == g), is_class1 & (group1 == g)
        empty = _count(member0, member1) == 0
        lead_z, lead_v = _lead_of(member0, member1, z0, z1), _lead_of(member0, member1, v0, v1)
        z_bits0 = tl.where(member0, (z0 - lead_z[None, :]) * bits, 0.0)
        z_bits1 = tl.where(member1, (z1 - lead_z[None, :]) * bits, 0.0)
        v_bits0 = tl.where(member0, (v0 - lead_v[None, :]) * bits, 0.0)
        v_bits1 = tl.where(member1, (v1 - lead_v[None, :]) * bits, 0.0)
        q0, q1 = tl.where(member0, exp2(z_bits0), 0.0), tl.where(member1, exp2(z_bits1), 0.0)
        p0, p1 = tl.where(member0, exp2(v_bits0), 0.0), tl.where(member1, exp2(v_bits1), 0.0)
        # The 1 keeps the logarithm of an empty group harmless.
        sum_z = tl.where(empty, 1.0, tl.sum(q0, 0) + tl.sum(q1, 0))
        sum_v = tl.where(empty, 1.0, tl.sum(p0, 0) + tl.sum(p1, 0))
        shift = tl.log(sum_v) - tl.log(sum_z)
        mass_z = tl.where(empty, 0.0, sum_z * exp2((lead_z - top_z) * bits) / total_z)
        mass_v = tl.where(empty, 0.0, sum_v * exp2((lead_v - top_v) * bits) / total_v)
        log_ratio = ((lead_v - top_v) - (lead_z - top_z)) * per_t + shift - (tl.log(total_v) - tl.log(total_z))
        between += tl.where(empty, 0.0, kl_term(mass_v, mass_z, log_ratio))
        more = tl.where(leader == g, 0.0, mass_z - mass_v)
        others += more

        q0, q1 = q0 / sum_z[None, :], q1 / sum_z[None, :]
        p0, p1 = p0 / sum_v[None, :], p1 / sum_v[None, :]
        d0 = tl.where(member0, (v_bits0 - z_bits0) * LN_2 - shift[None, :], 0.0)
        d1 = tl.where(member1, (v_bits1 - z_bits1) * LN_2 - shift[None, :], 0.0)
        within, g0, g1 = _within(p0, p1, q0, q1, d0, d1, member0, member1, DIVERGENCE)
        weight = tl.load(w_within + g)
        loss += weight * within
        out0 += tl.where(member0, weight * g0 + w_between * more[None, :] * q0, 0.0)
        out1 += tl.where(member1, weight * g1 + w_between * more[None, :] * q1, 0.0)
        leading0 = tl.where(member0 & (leader == g)[None, :], q0, leading0)
        leading1 = tl.where(member1 & (leader == g)[None, :], q1, leading1)
    out0 -= w_between * others[None, :] * leading0
    out1 -= w_between * others[None, :] * leading1
    loss = temperature * temperature * factor * (loss + w_between * between)
    # A loss that is not a number has a gradient that is none: nobody shall step on it unseen.
    scale = temperature * factor + 0.0 * loss
    return loss, scale[None, :] * out0, scale[None, :] * out1
