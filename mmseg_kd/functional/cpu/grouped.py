"""The grouped divergence of a block of positions: value and gradient from one visit to the logits.

The arrays of a block have the shape (C, B), B positions wide. Which group each class is in (:func:`assign_groups`), and
the divergence for any groups (:func:`grouped_block`). Two cases have less work to do, with the same numbers: one set of
all classes, or of all but one (:func:`one_set_block`, KD and DKD), and two groups (:func:`two_sets_block`, GDKD).
"""
import numpy as np

from ..kinds import ALL, GIVEN, RANDOM, TARGET
from ..topk import NEARLY_NOTHING
from .arithmetic import count_positions, exp, find_largest, inlined, jit, kl_term, log

__all__ = ['assign_groups', 'coupled_block', 'fill_groups', 'grouped_block', 'one_set_block', 'two_sets_block']

_f = np.float32
_ZERO, _HALF, _ONE, _LOWEST = _f(0), _f(.5), _f(1), _f(-np.inf)
_NEARLY_NOTHING = _f(NEARLY_NOTHING)
#: Where a class is that is in no set.
_AWAY = _f(-1e30)


@jit
def assign_groups(group, teacher, kind, target, boundaries, largest, leading, ratio, temperature, draws, keep):
    """Fill ``group`` as the descriptions in :mod:`mmseg_kd.functional.grouped` define it.

    Args:
        group: (C, B) int32, filled with 0, 1, 2, and so on.
        teacher: (C, B) float32 logits.
        kind: see :mod:`..kinds`; for GIVEN there is nothing to do.
        target: (B,) int64 labels, for TARGET and RANDOM.
        boundaries: (1 or 2, B) int32 ranks at which the next group begins, for RANK.
        largest: the largest of them.
        leading: True where rank 0 is the highest logit, False where it is the lowest.
        ratio: above 0, the boundary is found by ``k_by_ratio`` with this ratio and ``largest``.
        temperature: T, for ``ratio``.
        draws: (C, B) float32 uniform numbers, for RANDOM.
        keep: the share of draws that count, for RANDOM.
    """
    num_classes, width = group.shape
    if kind == GIVEN:
        return
    if kind == ALL:
        group[:] = 0
    elif kind == TARGET:
        for c in range(num_classes):
            for b in range(width):
                group[c, b] = 0 if target[b] == c else 1
    elif kind == RANDOM:
        for c in range(num_classes):
            for b in range(width):
                group[c, b] = 0 if target[b] == c else (2 if draws[c, b] < keep else 1)
    else:
        _by_rank(group, teacher, boundaries, largest, leading, ratio, temperature)


@jit
def fill_groups(group, given, image, labels, places):
    """Fill ``group`` (C, B) from groups that are given as (images, labels, C, positions), 1 where all are alike.

    Args:
        image: the image.
        labels, places: (B,) int64 label and position of each.
    """
    of_image = given[image if given.shape[0] > 1 else 0]
    rows, positions = of_image.shape[0], of_image.shape[2]
    for c in range(group.shape[0]):
        if positions > 1:
            for b in range(group.shape[1]):
                group[c, b] = of_image[0, c, places[b]]
        elif rows > 1:
            for b in range(group.shape[1]):
                # An ignored label finds the row of some class; its position does not count.
                group[c, b] = of_image[min(max(labels[b], 0), rows - 1), c, 0]
        else:
            group[c, :] = of_image[0, c, 0]


@jit
def _by_rank(group, teacher, boundaries, largest, leading, ratio, temperature):
    num_classes, width = group.shape
    sign = _ONE if leading else -_ONE
    top = _top_values(teacher, num_classes if ratio > 0 else largest, sign)
    if ratio > 0:
        _k_by_ratio(boundaries[0], top, largest, ratio, temperature)
    group[:] = 0
    threshold = np.empty(width, np.float32)
    left = np.empty(width, np.int32)
    for boundary in boundaries:
        # Rank below the boundary: above the threshold, or among the first of those equal to it.
        for j in range(largest):
            for b in range(width):
                threshold[b] = top[j, b] if boundary[b] == j + 1 else threshold[b]
        left[:] = boundary
        for c in range(num_classes):
            for b in range(width):
                left[b] -= 1 if sign * teacher[c, b] > threshold[b] else 0
        for c in range(num_classes):
            for b in range(width):
                value = sign * teacher[c, b]
                tied = value == threshold[b]
                inside = value > threshold[b] or (tied and left[b] > 0)
                left[b] -= 1 if tied else 0
                group[c, b] += 0 if inside else 1


@jit
def _top_values(teacher, count, sign):
    """The ``count`` largest of sign * teacher, in descending order, (count, B)."""
    num_classes, width = teacher.shape
    top = np.full((count, width), _LOWEST, np.float32)
    falling = np.empty(width, np.float32)
    for c in range(num_classes):
        for b in range(width):
            falling[b] = sign * teacher[c, b]
        for j in range(count):
            for b in range(width):
                held, value = top[j, b], falling[b]
                top[j, b] = value if value > held else held
                falling[b] = held if value > held else value
    return top


@jit
def _k_by_ratio(boundary, sorted_logits, largest, ratio, temperature):
    """As ``k_by_ratio``: from the last rank upwards, the sum of a class and all smaller ones relative to that class."""
    num_classes, width = sorted_logits.shape
    smaller = np.zeros(width, np.float32)
    boundary[:] = 0
    for rank in range(num_classes, 0, -1):
        if rank < num_classes:
            for b in range(width):
                smaller[b] += _ONE
            for b in range(width):
                smaller[b] *= exp((sorted_logits[rank, b] - sorted_logits[rank - 1, b]) / temperature)
            for b in range(width):
                smaller[b] = max(smaller[b], _NEARLY_NOTHING)
        # count >= ratio * (1 + smaller), without the sum that would swallow a small one
        beyond = np.float32(num_classes + 1 - rank) - ratio
        for b in range(width):
            boundary[b] = rank if boundary[b] == 0 and beyond >= ratio * smaller[b] else boundary[b]
    for b in range(width):
        boundary[b] = min(max(boundary[b], 1), largest)


@jit
def grouped_block(student, teacher, group, num_groups, temperature, w_between, w_within, forward, reverse, factor,
                  loss):
    """Loss of each position and, in place of the student's logits, the gradient.

    The formulas are those of :func:`mmseg_kd.functional.grouped.grouped_kl`.

    Args:
        student: (C, B) float32 logits z; replaced by factor * dL/dz.
        teacher: (C, B) float32 logits v; overwritten.
        group: (C, B) int32, 0 .. num_groups - 1.
        num_groups: how many.
        temperature: T, float32.
        w_between: float32.
        w_within: float32, one for each group.
        forward, reverse: float32 shares of KL(teacher || student) and of its reverse within the groups.
        factor: (B,) float32, what each position counts; where it is 0 value and gradient are 0 whatever the logits.
        loss: (B,) float32, filled with factor * L.
    """
    num_classes, width = student.shape
    shape = (num_groups, width)
    lead_z, lead_v = np.full(shape, _LOWEST, np.float32), np.full(shape, _LOWEST, np.float32)
    _leads(student, group, lead_z)
    _leads(teacher, group, lead_v)

    # From here student holds e^z', teacher v' - z', where z' and v' are (logit - lead of its group) / T.
    exp_v = np.empty((num_classes, width), np.float32)
    _relative_to_lead(student, group, lead_z, temperature)
    _relative_to_lead(teacher, group, lead_v, temperature)
    for c in range(num_classes):
        _exponentials(student[c], teacher[c], exp_v[c])

    sum_z, sum_v = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    cross = np.zeros(shape, np.float32)
    _sums_of_groups(student, group, sum_z)
    _sums_of_groups(exp_v, group, sum_v)
    if reverse != _ZERO:
        _sums_of_products(student, teacher, group, cross)

    log_ratio, mass_difference = np.empty(shape, np.float32), np.empty(shape, np.float32)
    _between_groups(lead_z, lead_v, sum_z, sum_v, temperature, log_ratio, mass_difference, loss)
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
def _exponentials(student, teacher, exp_v):
    """Of one class: ``student`` z' becomes e^z', ``teacher`` v' becomes v' - z', ``exp_v`` becomes e^v'."""
    for b in range(student.shape[0]):
        exp_v[b] = exp(teacher[b])
    for b in range(student.shape[0]):
        teacher[b] -= student[b]
    for b in range(student.shape[0]):
        student[b] = exp(student[b])


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


@jit
def _own(own, of_group, group):
    """own[b] = of_group[group[b], b]"""
    for b in range(own.shape[0]):
        own[b] = of_group[0, b]
    for g in range(1, of_group.shape[0]):
        for b in range(own.shape[0]):
            own[b] = of_group[g, b] if group[b] == g else own[b]


@jit
def _leads(logits, group, lead):
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
def _sums_of_groups(values, group, sums):
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
def _between_groups(lead_z, lead_v, sum_z, sum_v, temperature, log_ratio, mass_difference, loss):
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
    find_largest(mass_v, leader, largest)
    for g in range(num_groups):
        for b in range(width):
            mass_z[g, b] = mass_z[g, b] - mass_v[g, b] if leader[b] != g else _ZERO
        for b in range(width):
            others[b] += mass_z[g, b]
    for g in range(num_groups):
        for b in range(width):
            mass_z[g, b] = -others[b] if leader[b] == g else mass_z[g, b]


@jit
def one_set_block(student, teacher, one, has_one, temperature, w_between, w_within, factor, loss):
    """As :func:`grouped_block`, forward, where all classes, or all but one, are one set.

    What a class needs of its group is one row for all classes, and a class by itself, which has nothing within, is put
    out of the set's way.

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
    # From here student holds e^z', exp_v e^v', teacher v' - z', where z' and v' are (logit - lead) / T.
    exp_v = np.empty((num_classes, width), np.float32)
    sum_z, sum_v = np.zeros(width, np.float32), np.zeros(width, np.float32)
    _set_of_all(student, teacher, exp_v, lead_z, lead_v, sum_z, sum_v, per_t)

    shift, more = np.empty(width, np.float32), np.zeros(width, np.float32)
    for b in range(width):
        shift[b] = log(sum_v[b]) - log(sum_z[b])
    loss[:] = 0
    if has_one:
        _between_one_and_set(z_one, v_one, lead_z, lead_v, sum_z, sum_v, per_t, more, loss)
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
        # The class that holds more than half of the set gets what the others lack: see _all_but_certain.
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
def _set_of_all(student, teacher, exp_v, lead_z, lead_v, sum_z, sum_v, per_t):
    """Of all classes as one set: see :func:`one_set_block`. The leads come as -inf, the sums as 0."""
    num_classes, width = student.shape
    for c in range(num_classes):
        for b in range(width):
            lead_z[b] = student[c, b] if student[c, b] > lead_z[b] else lead_z[b]
        for b in range(width):
            lead_v[b] = teacher[c, b] if teacher[c, b] > lead_v[b] else lead_v[b]
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


@jit
def coupled_block(student, teacher, one, temperature, alpha, beta, slope, sums_only, factor, loss, figures):
    """DKD and DGKD's coupling term, in the manner of :func:`one_set_block`.

    The names are those of :func:`mmseg_kd.functional.coupling.part_gradients`; all gradients are in units of T.

    Args:
        one: (B,) int64 labels.
        slope: of the coupling term, by which its direction is multiplied.
        sums_only: whether only ``figures`` are wanted; then ``student`` and ``loss`` are scratch.
        figures: (5,) float64; where the factor is not 0, the sum over positions and classes of the squared difference
            of the two gradients, the same times the factor, of the squared direction, of DKD's squared gradient; and
            the largest difference.
    """
    num_classes, width = student.shape
    per_t = _ONE / temperature
    lead_z, lead_v = np.full(width, _LOWEST, np.float32), np.full(width, _LOWEST, np.float32)
    z_one, v_one = np.zeros(width, np.float32), np.zeros(width, np.float32)
    _take_out(student, one, z_one, temperature)
    _take_out(teacher, one, v_one, temperature)
    exp_v = np.empty((num_classes, width), np.float32)
    sum_z, sum_v = np.zeros(width, np.float32), np.zeros(width, np.float32)
    _set_of_all(student, teacher, exp_v, lead_z, lead_v, sum_z, sum_v, per_t)
    more, both, shift = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    _between_one_and_set(z_one, v_one, lead_z, lead_v, sum_z, sum_v, per_t, more, loss)
    for b in range(width):
        # The student's mass of the target times that of the rest.
        e = exp(-abs((z_one[b] - lead_z[b]) * per_t - log(sum_z[b])))
        both[b] = e / ((_ONE + e) * (_ONE + e))
    for b in range(width):
        shift[b] = log(sum_v[b]) - log(sum_z[b])
    for b in range(width):
        sum_z[b] = _ONE / sum_z[b]
    for b in range(width):
        sum_v[b] = _ONE / sum_v[b]

    within, rest, certain = np.zeros(width, np.float32), np.zeros(width, np.float32), np.full(width, -1, np.int32)
    for c in range(num_classes):
        for b in range(width):
            student[c, b] *= sum_z[b]
        for b in range(width):
            exp_v[c, b] *= sum_v[b]
        if not sums_only:
            for b in range(width):
                within[b] += kl_term(exp_v[c, b], student[c, b], teacher[c, b] - shift[b])
        # From here teacher holds q - p.
        for b in range(width):
            teacher[c, b] = student[c, b] - exp_v[c, b]
        for b in range(width):
            certain[b] = c if exp_v[c, b] > _HALF else certain[b]
        for b in range(width):
            teacher[c, b] = teacher[c, b] if exp_v[c, b] <= _HALF else _ZERO
        for b in range(width):
            rest[b] += teacher[c, b]
    for b in range(width):
        if certain[b] >= 0:
            teacher[certain[b], b] = -rest[b]

    # The target has q = p = 0; what it adds comes afterwards. exp_v becomes the difference of the two gradients.
    along_q, largest = np.zeros(width, np.float32), np.zeros(width, np.float32)
    squares, of_dkd, of_direction = np.zeros(width), np.zeros(width), np.zeros(width)
    for c in range(num_classes):
        for b in range(width):
            exp_v[c, b] = more[b] * student[c, b] - teacher[c, b]
        for b in range(width):
            along_q[b] += student[c, b] * exp_v[c, b]
        if sums_only:
            for b in range(width):
                largest[b] = _larger(abs(exp_v[c, b]), largest[b])
            for b in range(width):
                squares[b] += np.float64(exp_v[c, b]) * np.float64(exp_v[c, b])
            for b in range(width):
                x = np.float64(alpha * more[b] * student[c, b] + beta * teacher[c, b])
                of_dkd[b] += x * x
    pull, less = np.empty(width, np.float32), np.empty(width, np.float32)
    for b in range(width):
        pull[b] = both[b] * (-more[b] - along_q[b])
    for b in range(width):
        # Direction of a class: -q (less * difference + pull - less * along_q)
        less[b] = _ONE - more[b]
    for b in range(width):
        along_q[b] = pull[b] - less[b] * along_q[b]
    if sums_only:
        for c in range(num_classes):
            for b in range(width):
                x = np.float64(student[c, b] * (less[b] * exp_v[c, b] + along_q[b]))
                of_direction[b] += x * x
        scale = np.float64(temperature)
        for b in range(width):
            if factor[b] == _ZERO:
                continue
            target_square = np.float64(more[b]) * np.float64(more[b])
            m = scale * scale * (squares[b] + target_square)
            figures[0] += m
            figures[1] += factor[b] * m
            figures[2] += scale * scale * (of_direction[b] + np.float64(pull[b]) * np.float64(pull[b]))
            figures[3] += scale * scale * (of_dkd[b] + alpha * alpha * target_square)
            figures[4] = max(figures[4], scale * max(largest[b], abs(more[b])))
        return
    for c in range(num_classes):
        for b in range(width):
            exp_v[c, b] = slope * (student[c, b] * (less[b] * exp_v[c, b] + along_q[b]))
        for b in range(width):
            student[c, b] = alpha * more[b] * student[c, b] + beta * teacher[c, b]
        for b in range(width):
            student[c, b] -= exp_v[c, b]
    for b in range(width):
        if 0 <= one[b] < num_classes:
            student[one[b], b] = slope * pull[b] - alpha * more[b]
    for b in range(width):
        loss[b] = alpha * loss[b] + beta * within[b]
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
def _between_one_and_set(z_one, v_one, lead_z, lead_v, sum_z, sum_v, per_t, more, loss):
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


@inlined
def _of_own(group, of_first, of_second):
    """What a class has of its group. Both are read before one is chosen: a read that may not happen is no vector's."""
    return of_first if group == 0 else of_second


@jit
def two_sets_block(student, teacher, group, temperature, w_between, w_within, factor, loss):
    """As :func:`grouped_block` with groups 0 and 1, forward: what a class needs of its group is chosen where needed."""
    num_classes, width = student.shape
    per_t, shape = _ONE / temperature, (2, width)
    lead_z, lead_v = np.full(shape, _LOWEST, np.float32), np.full(shape, _LOWEST, np.float32)
    _leads(student, group, lead_z)
    _leads(teacher, group, lead_v)

    # From here student holds e^z', teacher v' - z', where z' and v' are (logit - lead of its group) / T.
    exp_v = np.empty((num_classes, width), np.float32)
    for c in range(num_classes):
        for b in range(width):
            student[c, b] = (student[c, b] - _of_own(group[c, b], lead_z[0, b], lead_z[1, b])) * per_t
        for b in range(width):
            teacher[c, b] = (teacher[c, b] - _of_own(group[c, b], lead_v[0, b], lead_v[1, b])) * per_t
        _exponentials(student[c], teacher[c], exp_v[c])
    sum_z, sum_v = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    _sums_of_groups(student, group, sum_z)
    _sums_of_groups(exp_v, group, sum_v)
    shift, more = np.empty(shape, np.float32), np.empty(shape, np.float32)
    _between_groups(lead_z, lead_v, sum_z, sum_v, temperature, shift, more, loss)
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
        # The class that holds more than half of its group gets what the others lack: see _all_but_certain.
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
