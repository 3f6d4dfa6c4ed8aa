"""The grouped divergence of a block of positions: value and gradient from one visit to the logits.

The loops are short and touch few arrays each: LLVM makes vector instructions of a loop only where it can tell at run
time, with few comparisons, that its arrays do not overlap.
"""
import math

import numpy as np

from .arithmetic import exp, inlined, jit, log
from .counting import count_positions

__all__ = ['between_groups', 'grouped_block', 'kl_term', 'leads', 'sums_of_groups']

_ONE, _ZERO, _LOWEST = np.float32(1), np.float32(0), np.float32(-np.inf)
_HALF, _NEAR = np.float32(.5), np.float32(.75)
# d - 1 + e^-d = d^2 / 2! - d^3 / 3! + ...
_S2, _S3, _S4, _S5, _S6, _S7, _S8, _S9 = (np.float32((-1)**n / math.factorial(n)) for n in range(2, 10))


@jit
def grouped_block(student, teacher, group, num_groups, temperature, w_between, w_within, forward, reverse, factor,
                  loss):
    """Loss of each position and, in place of the student's logits, the gradient.

    The formulas are those of :func:`mmseg_kd.functional.grouped.grouped_kl`.

    Args:
        student: (C, B) float32 logits z; replaced by factor * dL/dz.
        teacher: (C, B) float32 logits v; overwritten.
        group: (C, B) int32, 0 .. num_groups - 1.
        num_groups: up to 3.
        temperature: T, float32.
        w_between: float32.
        w_within: (3,) float32.
        forward, reverse: float32 shares of KL(teacher || student) and of its reverse within the groups.
        factor: (B,) float32, what each position counts; where it is 0 value and gradient are 0 whatever the logits.
        loss: (B,) float32, filled with factor * L.
    """
    num_classes, width = student.shape
    shape = (num_groups, width)
    lead_z, lead_v = np.full(shape, _LOWEST, np.float32), np.full(shape, _LOWEST, np.float32)
    leads(student, group, lead_z)
    leads(teacher, group, lead_v)

    # From here student holds e^z', teacher v' - z', where z' and v' are (logit - lead of its group) / T.
    exp_v = np.empty((num_classes, width), np.float32)
    _relative_to_lead(student, group, lead_z, temperature)
    _relative_to_lead(teacher, group, lead_v, temperature)
    for c in range(num_classes):
        for b in range(width):
            exp_v[c, b] = exp(teacher[c, b])
        for b in range(width):
            teacher[c, b] -= student[c, b]
        for b in range(width):
            student[c, b] = exp(student[c, b])

    sum_z, sum_v = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    cross = np.zeros(shape, np.float32)
    sums_of_groups(student, group, sum_z)
    sums_of_groups(exp_v, group, sum_v)
    if reverse != _ZERO:
        _sums_of_products(student, teacher, group, cross)

    log_ratio, mass_difference = np.empty(shape, np.float32), np.empty(shape, np.float32)
    between_groups(lead_z, lead_v, sum_z, sum_v, temperature, log_ratio, mass_difference, loss)
    for b in range(width):
        loss[b] *= w_between
    # The rows that a class needs of its group.
    per_z, per_v, shift = np.zeros(width, np.float32), np.zeros(width, np.float32), np.zeros(width, np.float32)
    weight, between, mean_cross = np.zeros(width, np.float32), np.zeros(width, np.float32), np.zeros(width, np.float32)
    weights = np.empty(shape, np.float32)
    certain_p, certain_q = np.full(shape, -1, np.int32), np.full(shape, -1, np.int32)
    rest_p, rest_q = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for g in range(num_groups):
        weights[g, :] = w_within[g]
        for b in range(width):
            sum_z[g, b] = _ONE / sum_z[g, b]
        for b in range(width):
            sum_v[g, b] = _ONE / sum_v[g, b]
        for b in range(width):
            cross[g, b] = cross[g, b] * sum_z[g, b] - log_ratio[g, b]
    for c in range(num_classes):
        _own(per_z, sum_z, group[c])
        _own(per_v, sum_v, group[c])
        _own(shift, log_ratio, group[c])
        _own(weight, weights, group[c])
        _own(between, mass_difference, group[c])
        # student: q, the student's probability in the group; exp_v: p, the teacher's; teacher: log(p / q)
        for b in range(width):
            student[c, b] *= per_z[b]
        for b in range(width):
            exp_v[c, b] *= per_v[b]
        for b in range(width):
            teacher[c, b] -= shift[b]
        if forward != _ZERO:
            for b in range(width):
                per_v[b] = kl_term(exp_v[c, b], student[c, b], teacher[c, b])
            for b in range(width):
                loss[b] += forward * weight[b] * per_v[b]
        if reverse != _ZERO:
            _own(mean_cross, cross, group[c])
            for b in range(width):
                per_v[b] = kl_term(student[c, b], exp_v[c, b], -teacher[c, b])
            for b in range(width):
                loss[b] += reverse * weight[b] * per_v[b]
            for b in range(width):
                mean_cross[b] = student[c, b] * (mean_cross[b] - teacher[c, b])
            for b in range(width):
                mean_cross[b] *= reverse * weight[b]
            _all_but_certain(c, student[c], group[c], mean_cross, certain_q, rest_q)
        for b in range(width):
            weight[b] *= forward * (student[c, b] - exp_v[c, b])
        _all_but_certain(c, exp_v[c], group[c], weight, certain_p, rest_p)
        for b in range(width):
            exp_v[c, b] = weight[b]
        for b in range(width):
            student[c, b] = w_between * between[b] * student[c, b] + exp_v[c, b]
        if reverse != _ZERO:
            for b in range(width):
                student[c, b] += mean_cross[b]

    for g in range(num_groups):
        for b in range(width):
            if certain_p[g, b] >= 0:
                student[certain_p[g, b], b] -= rest_p[g, b]
            if certain_q[g, b] >= 0:
                student[certain_q[g, b], b] -= rest_q[g, b]

    count_positions(student, loss, factor, temperature * temperature, temperature)


@jit
def _all_but_certain(c, probability, group, gradient, certain, rest):
    """Take the class that holds more than half of its group out of ``gradient``, and sum the others.

    A divergence within a group has a gradient that sums to 0, and the difference of two probabilities near 1 has lost
    the digits that the others still have.
    """
    for g in range(certain.shape[0]):
        for b in range(gradient.shape[0]):
            certain[g, b] = c if group[b] == g and probability[b] > _HALF else certain[g, b]
    for b in range(gradient.shape[0]):
        gradient[b] = gradient[b] if probability[b] <= _HALF else _ZERO
    for g in range(certain.shape[0]):
        for b in range(gradient.shape[0]):
            rest[g, b] += gradient[b] if group[b] == g else _ZERO


@inlined
def kl_term(p, q, d):
    """p d - p + q for d = log(p / q), never negative; by its series where the three would cancel."""
    near = d * d * (_S2 + d * (_S3 + d * (_S4 + d * (_S5 + d * (_S6 + d * (_S7 + d * (_S8 + d * _S9)))))))
    far = p * d + (q - p)
    return p * near if abs(d) < _NEAR else far


@jit
def _own(own, of_group, group):
    """own[b] = of_group[group[b], b]"""
    for b in range(own.shape[0]):
        own[b] = of_group[0, b]
    for g in range(1, of_group.shape[0]):
        for b in range(own.shape[0]):
            own[b] = of_group[g, b] if group[b] == g else own[b]


@jit
def leads(logits, group, lead):
    """The largest logit of each group, (G, B), into ``lead``."""
    for c in range(logits.shape[0]):
        for g in range(lead.shape[0]):
            for b in range(logits.shape[1]):
                value = logits[c, b] if group[c, b] == g else _LOWEST
                lead[g, b] = value if value > lead[g, b] else lead[g, b]


@jit
def _relative_to_lead(logits, group, lead, temperature):
    per_temperature = _ONE / temperature
    own = np.zeros(logits.shape[1], np.float32)
    for c in range(logits.shape[0]):
        _own(own, lead, group[c])
        for b in range(logits.shape[1]):
            logits[c, b] = (logits[c, b] - own[b]) * per_temperature


@jit
def sums_of_groups(values, group, sums):
    """Add the values of each group to ``sums``, (G, B)."""
    for c in range(values.shape[0]):
        for g in range(sums.shape[0]):
            for b in range(values.shape[1]):
                sums[g, b] += values[c, b] if group[c, b] == g else _ZERO


@jit
def _sums_of_products(values, others, group, sums):
    for c in range(values.shape[0]):
        for g in range(sums.shape[0]):
            for b in range(values.shape[1]):
                sums[g, b] += values[c, b] * others[c, b] if group[c, b] == g else _ZERO


@jit
def _masses(lead, sums, temperature, mass, log_mass, log_sum):
    """Masses of the groups, their logarithms, and those of the sums; 0, and meaningless, for empty groups."""
    num_groups, width = lead.shape
    top, total = np.full(width, _LOWEST, np.float32), np.zeros(width, np.float32)
    for g in range(num_groups):
        for b in range(width):
            top[b] = lead[g, b] if lead[g, b] > top[b] else top[b]
    for g in range(num_groups):
        # The 1 keeps the logarithm of an empty group harmless.
        for b in range(width):
            sums[g, b] = sums[g, b] if lead[g, b] > _LOWEST else _ONE
        for b in range(width):
            log_sum[g, b] = log(sums[g, b])
        for b in range(width):
            log_mass[g, b] = (lead[g, b] - top[b]) / temperature
        for b in range(width):
            mass[g, b] = sums[g, b] * exp(log_mass[g, b])
        for b in range(width):
            total[b] += mass[g, b]
        for b in range(width):
            log_mass[g, b] += log_sum[g, b]
    for g in range(num_groups):
        for b in range(width):
            mass[g, b] /= total[b]
        for b in range(width):
            log_mass[g, b] = log_mass[g, b] - log(total[b]) if lead[g, b] > _LOWEST else _ZERO


@jit
def between_groups(lead_z, lead_v, sum_z, sum_v, temperature, log_ratio, mass_difference, loss):
    """Divergence of the masses (``loss``), mass of the student less the teacher's, log of sum_v / sum_z."""
    num_groups, width = lead_z.shape
    mass_z, log_mass_z, log_sum_z = np.empty_like(lead_z), np.empty_like(lead_z), np.empty_like(lead_z)
    mass_v, log_mass_v, log_sum_v = np.empty_like(lead_z), np.empty_like(lead_z), np.empty_like(lead_z)
    _masses(lead_z, sum_z, temperature, mass_z, log_mass_z, log_sum_z)
    _masses(lead_v, sum_v, temperature, mass_v, log_mass_v, log_sum_v)
    loss[:] = 0
    for g in range(num_groups):
        for b in range(width):
            log_ratio[g, b] = log_sum_v[g, b] - log_sum_z[g, b]
        for b in range(width):
            log_mass_v[g, b] -= log_mass_z[g, b]
        for b in range(width):
            log_mass_v[g, b] = kl_term(mass_v[g, b], mass_z[g, b], log_mass_v[g, b])
        for b in range(width):
            loss[b] += log_mass_v[g, b]
    _mass_differences(mass_z, mass_v)
    mass_difference[:] = mass_z


@jit
def _mass_differences(mass_z, mass_v):
    """mass_z -= mass_v. The leading group's difference is what the others lack: two masses near 1 lost its digits."""
    num_groups, width = mass_z.shape
    leader, largest = np.zeros(width, np.int32), np.zeros(width, np.float32)
    others = np.zeros(width, np.float32)
    for g in range(num_groups):
        for b in range(width):
            leader[b] = g if mass_v[g, b] > largest[b] else leader[b]
        for b in range(width):
            largest[b] = mass_v[g, b] if mass_v[g, b] > largest[b] else largest[b]
    for g in range(num_groups):
        for b in range(width):
            mass_z[g, b] = mass_z[g, b] - mass_v[g, b] if leader[b] != g else _ZERO
        for b in range(width):
            others[b] += mass_z[g, b]
    for g in range(num_groups):
        for b in range(width):
            mass_z[g, b] = -others[b] if leader[b] == g else mass_z[g, b]
