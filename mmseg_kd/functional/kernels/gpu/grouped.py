"""The grouped divergence of a tile of positions: value and gradient from one visit to the logits.

A tile is (classes, positions). Its classes come in two parts, the largest power of two below their number and what is
left, since Triton's tiles have powers of two alone: 19 classes take 16 + 4 rows instead of 32, 150 take 128 + 32
instead of 256. Every step below is done to both parts (``0``, ``1``), the sums over them are joined.

The groups are, as in every loss of the family: at most one class by itself (``one``: the target, or the teacher's
first) and one or two sets, A and B. A class by itself has nothing within.
"""
import triton
import triton.language as tl

from .arithmetic import LN_2, LOG2_E, exp2, kl_term

__all__ = ['grouped_tile']


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
    # The 1 keeps the logarithm of an empty set harmless; a lead that is not a number is no empty set.
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
