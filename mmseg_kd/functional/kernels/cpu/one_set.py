"""The grouped divergence where all classes, or all but one, are one set: KD and DKD.

The same numbers as :func:`.grouped.grouped_block` with less work: what a class needs of its group is one row for all
classes, and a class by itself, which has nothing within, is put out of the set's way.
"""
import numpy as np

from .arithmetic import exp, inlined, jit, log
from .counting import count_positions
from .grouped import kl_term

__all__ = ['one_set_block']

_f = np.float32
_ZERO, _HALF, _ONE, _LOWEST, _AWAY = _f(0), _f(.5), _f(1), _f(-np.inf), _f(-1e30)


@jit
def one_set_block(student, teacher, one, has_one, temperature, w_between, w_within, factor, loss):
    """As :func:`.grouped.grouped_block`, forward.

    Args:
        one: (B,) int64, the class by itself; not read unless ``has_one``.
        has_one: whether there is one.
        w_within: weight within the set of the others.
    """
    num_classes, width = student.shape
    per_t = _ONE / temperature
    lead_z, lead_v = np.full(width, _LOWEST, np.float32), np.full(width, _LOWEST, np.float32)
    z_one, v_one = np.zeros(width, np.float32), np.zeros(width, np.float32)
    if has_one:
        _take_out(student, one, z_one, temperature)
        _take_out(teacher, one, v_one, temperature)
    for c in range(num_classes):
        for b in range(width):
            lead_z[b] = student[c, b] if student[c, b] > lead_z[b] else lead_z[b]
        for b in range(width):
            lead_v[b] = teacher[c, b] if teacher[c, b] > lead_v[b] else lead_v[b]

    # From here student holds e^z', teacher v' - z', where z' and v' are (logit - lead) / T.
    exp_v = np.empty((num_classes, width), np.float32)
    sum_z, sum_v = np.zeros(width, np.float32), np.zeros(width, np.float32)
    for c in range(num_classes):
        for b in range(width):
            student[c, b] = (student[c, b] - lead_z[b]) * per_t
        for b in range(width):
            teacher[c, b] = (teacher[c, b] - lead_v[b]) * per_t
        for b in range(width):
            exp_v[c, b] = exp(teacher[c, b])
        for b in range(width):
            sum_v[b] += exp_v[c, b]
        for b in range(width):
            teacher[c, b] -= student[c, b]
        for b in range(width):
            student[c, b] = exp(student[c, b])
        for b in range(width):
            sum_z[b] += student[c, b]

    shift, more = np.empty(width, np.float32), np.zeros(width, np.float32)
    for b in range(width):
        shift[b] = log(sum_v[b]) - log(sum_z[b])
    loss[:] = 0
    if has_one:
        _between(z_one, v_one, lead_z, lead_v, sum_z, sum_v, per_t, more, loss)
        for b in range(width):
            loss[b] *= w_between
        for b in range(width):
            more[b] *= w_between
    for b in range(width):
        sum_z[b] = _ONE / sum_z[b]
    for b in range(width):
        sum_v[b] = _ONE / sum_v[b]
    within, rest = np.zeros(width, np.float32), np.zeros(width, np.float32)
    certain, difference = np.full(width, -1, np.int32), np.empty(width, np.float32)
    for c in range(num_classes):
        # student: q, the student's probability in the set; exp_v: p, the teacher's; teacher: log(p / q)
        for b in range(width):
            student[c, b] *= sum_z[b]
        for b in range(width):
            exp_v[c, b] *= sum_v[b]
        for b in range(width):
            within[b] += kl_term(exp_v[c, b], student[c, b], teacher[c, b] - shift[b])
        for b in range(width):
            difference[b] = student[c, b] - exp_v[c, b]
        # The class that holds more than half of the set gets what the others lack: see grouped._all_but_certain.
        for b in range(width):
            certain[b] = c if exp_v[c, b] > _HALF else certain[b]
        for b in range(width):
            difference[b] = difference[b] if exp_v[c, b] <= _HALF else _ZERO
        for b in range(width):
            rest[b] += difference[b]
        for b in range(width):
            student[c, b] = more[b] * student[c, b] + w_within * difference[b]
    for b in range(width):
        if certain[b] >= 0:
            student[certain[b], b] -= w_within * rest[b]
        if has_one and 0 <= one[b] < num_classes:
            student[one[b], b] = -more[b]

    for b in range(width):
        loss[b] += w_within * within[b]
    count_positions(student, loss, factor, temperature * temperature, temperature)


@jit
def _take_out(logits, one, of_one, temperature):
    """Note the logit of the class by itself, and put it so far below that its probability in the set is 0."""
    # Its quotient in units of T is still finite.
    away = _AWAY * min(temperature, _ONE)
    for b in range(logits.shape[1]):
        if 0 <= one[b] < logits.shape[0]:
            of_one[b] = logits[one[b], b]
            logits[one[b], b] = away


@inlined
def _larger(a, b):
    return a if a > b else b


@jit
def _between(z_one, v_one, lead_z, lead_v, sum_z, sum_v, per_t, more, loss):
    """Divergence of the masses of {one} and the set (``loss``), and the set's mass less the teacher's (``more``)."""
    width = loss.shape[0]
    smaller_z, smaller_v, sign = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    for b in range(width):
        top_z, top_v = _larger(z_one[b], lead_z[b]), _larger(v_one[b], lead_v[b])
        z_log, v_log = (z_one[b] - top_z) * per_t, (v_one[b] - top_v) * per_t
        z_rest, v_rest = (lead_z[b] - top_z) * per_t, (lead_v[b] - top_v) * per_t
        z_mass, v_mass = exp(z_log), exp(v_log)
        z_others, v_others = sum_z[b] * exp(z_rest), sum_v[b] * exp(v_rest)
        z_total, v_total = _ONE / (z_mass + z_others), _ONE / (v_mass + v_others)
        log_ratio = log(z_total) - log(v_total)
        z_mass, v_mass, z_others, v_others = z_mass * z_total, v_mass * v_total, z_others * z_total, v_others * v_total
        of_others = v_rest - z_rest + log(sum_v[b]) - log(sum_z[b])
        loss[b] = (kl_term(v_mass, z_mass, v_log - z_log - log_ratio)
                   + kl_term(v_others, z_others, of_others - log_ratio))
        # Of two masses that sum to 1 the smaller one has kept its digits.
        smaller_z[b] = z_others if v_mass > v_others else z_mass
        smaller_v[b] = v_others if v_mass > v_others else v_mass
        sign[b] = _ONE if v_mass > v_others else -_ONE
    # Not in the loop above: a difference that is fused with its products is not 0 where they are equal.
    for b in range(width):
        more[b] = sign[b] * (smaller_z[b] - smaller_v[b])
