"""The grouped divergence of two groups, forward: GDKD as it is mostly used.

The same numbers as :func:`.grouped.grouped_block` with less work: what a class needs of its group is chosen where it is
needed, and the weights within are two numbers.
"""
import numpy as np

from .arithmetic import exp, inlined, jit
from .counting import count_positions
from .grouped import between_groups, kl_term, leads, sums_of_groups

__all__ = ['two_sets_block']

_f = np.float32
_ZERO, _HALF, _ONE, _LOWEST = _f(0), _f(.5), _f(1), _f(-np.inf)


@inlined
def _of_own(group, of_first, of_second):
    """What a class has of its group. Both are read before one is chosen: a read that may not happen is no vector's."""
    return of_first if group == 0 else of_second


@jit
def two_sets_block(student, teacher, group, temperature, w_between, w_within, factor, loss):
    """As :func:`.grouped.grouped_block` with groups 0 and 1, forward."""
    num_classes, width = student.shape
    per_t, shape = _ONE / temperature, (2, width)
    lead_z, lead_v = np.full(shape, _LOWEST, np.float32), np.full(shape, _LOWEST, np.float32)
    leads(student, group, lead_z)
    leads(teacher, group, lead_v)

    # From here student holds e^z', teacher v' - z', where z' and v' are (logit - lead of its group) / T.
    exp_v = np.empty((num_classes, width), np.float32)
    for c in range(num_classes):
        for b in range(width):
            student[c, b] = (student[c, b] - _of_own(group[c, b], lead_z[0, b], lead_z[1, b])) * per_t
        for b in range(width):
            teacher[c, b] = (teacher[c, b] - _of_own(group[c, b], lead_v[0, b], lead_v[1, b])) * per_t
        for b in range(width):
            exp_v[c, b] = exp(teacher[c, b])
        for b in range(width):
            teacher[c, b] -= student[c, b]
        for b in range(width):
            student[c, b] = exp(student[c, b])
    sum_z, sum_v = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    sums_of_groups(student, group, sum_z)
    sums_of_groups(exp_v, group, sum_v)
    shift, more = np.empty(shape, np.float32), np.empty(shape, np.float32)
    between_groups(lead_z, lead_v, sum_z, sum_v, temperature, shift, more, loss)
    for b in range(width):
        loss[b] *= w_between
    for g in range(2):
        for b in range(width):
            more[g, b] *= w_between
        for b in range(width):
            sum_z[g, b] = _ONE / sum_z[g, b]
        for b in range(width):
            sum_v[g, b] = _ONE / sum_v[g, b]

    first, second = w_within[0], w_within[1]
    term, difference = np.empty(width, np.float32), np.empty(width, np.float32)
    certain, rest = np.full(shape, -1, np.int32), np.zeros(shape, np.float32)
    for c in range(num_classes):
        # student: q, the student's probability in the group; exp_v: p, the teacher's; teacher: log(p / q)
        for b in range(width):
            student[c, b] *= _of_own(group[c, b], sum_z[0, b], sum_z[1, b])
        for b in range(width):
            exp_v[c, b] *= _of_own(group[c, b], sum_v[0, b], sum_v[1, b])
        for b in range(width):
            teacher[c, b] -= _of_own(group[c, b], shift[0, b], shift[1, b])
        for b in range(width):
            term[b] = kl_term(exp_v[c, b], student[c, b], teacher[c, b])
        for b in range(width):
            loss[b] += term[b] * _of_own(group[c, b], first, second)
        for b in range(width):
            difference[b] = student[c, b] - exp_v[c, b]
        # The class that holds more than half of its group gets what the others lack: see grouped._all_but_certain.
        for g in range(2):
            for b in range(width):
                certain[g, b] = c if group[c, b] == g and exp_v[c, b] > _HALF else certain[g, b]
        for b in range(width):
            difference[b] = difference[b] if exp_v[c, b] <= _HALF else _ZERO
        for g in range(2):
            for b in range(width):
                rest[g, b] += difference[b] if group[c, b] == g else _ZERO
        for b in range(width):
            difference[b] *= _of_own(group[c, b], first, second)
        for b in range(width):
            student[c, b] = _of_own(group[c, b], more[0, b], more[1, b]) * student[c, b] + difference[b]
    for b in range(width):
        if certain[0, b] >= 0:
            student[certain[0, b], b] -= first * rest[0, b]
        if certain[1, b] >= 0:
            student[certain[1, b], b] -= second * rest[1, b]

    count_positions(student, loss, factor, temperature * temperature, temperature)
