"""The losses without groups, of a block of positions: value and gradient from one visit to the logits."""
import numpy as np

from .arithmetic import count_positions, exp, find_largest, jit, log, log1p, log1p_of_exp

__all__ = ['binary_kl_block', 'binary_kl_norm_block', 'cross_entropy_block']

_f = np.float32
_ZERO, _HALF, _ONE, _TWO, _LN_2, _LOWEST = _f(0), _f(.5), _f(1), _f(2), _f(0.69314718056), _f(-np.inf)
_SMALL = _f(.4)
# Taylor series in x^2 of log(cosh x) / x^2 and of tanh(x) / x
_C2, _C4, _C6, _C8, _C10 = (_f(c) for c in (1 / 2, -1 / 12, 1 / 45, -17 / 2520, 31 / 14175))
_T3, _T5, _T7, _T9, _T11 = (_f(c) for c in (-1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925))

_K3, _K4, _K5, _K6, _K7, _K8 = (_f(1 / n) for n in (6, 24, 120, 720, 5040, 40320))


@jit
def binary_kl_norm_block(student, teacher, temperature, factor, loss):
    """As :func:`mmseg_kd.functional.binary_kl_norm_loss`; arguments as for :func:`.grouped.grouped_block`."""
    num_classes, width = student.shape
    half_per_t = _HALF / temperature
    difference, small = np.empty(width, np.float32), np.empty(width, np.float32)
    loss[:] = 0
    for c in range(num_classes):
        for b in range(width):
            difference[b] = (student[c, b] - teacher[c, b]) * half_per_t
        for b in range(width):
            x = difference[b]
            s = x * x
            far = abs(x) + (log1p_of_exp(-_TWO * abs(x)) - _LN_2)
            near = s * (_C2 + s * (_C4 + s * (_C6 + s * (_C8 + s * _C10))))
            small[b] = near if abs(x) < _SMALL else far
        for b in range(width):
            loss[b] += small[b]
        for b in range(width):
            x = difference[b]
            s = x * x
            e = exp(-_TWO * abs(x))
            far = (_ONE - e) / (_ONE + e)
            far = -far if x < _ZERO else far
            near = x * (_ONE + s * (_T3 + s * (_T5 + s * (_T7 + s * (_T9 + s * _T11)))))
            small[b] = near if abs(x) < _SMALL else far
        for b in range(width):
            student[c, b] = _HALF * temperature * small[b]
    count_positions(student, loss, factor, temperature * temperature, _ONE)


@jit
def binary_kl_block(student, teacher, temperature, factor, loss):
    """As :func:`mmseg_kd.functional.binary_kl_loss`, in the manner of :func:`binary_kl_norm_block`."""
    num_classes, width = student.shape
    per_t = _ONE / temperature
    value, noes = np.empty(width, np.float32), np.empty(width, np.float32)
    loss[:] = 0
    for c in range(num_classes):
        for b in range(width):
            z, v = student[c, b] * per_t, teacher[c, b] * per_t
            # Both signs turned so that the teacher says no: its own probability keeps its digits.
            z = -z if v > _ZERO else z
            v = -abs(v)
            e, d = exp(v), z - v
            no = e / (_ONE + e)
            far = (log1p_of_exp(-abs(z)) - log1p(e)) + (z if z > _ZERO else _ZERO) - no * d
            # Where the three cancel: the cumulants of the teacher's distribution, d^n / n! times each.
            k, s = no * (_ONE - no), _ONE - _TWO * no
            near = _K8 * (_ONE - k * (_f(126) - k * (_f(1680) - _f(5040) * k)))
            near = _K7 * s * (_ONE - k * (_f(60) - _f(360) * k)) + d * near
            near = _K6 * (_ONE - k * (_f(30) - _f(120) * k)) + d * near
            near = _K5 * s * (_ONE - _f(12) * k) + d * near
            near = _K3 * s + d * (_K4 * (_ONE - _f(6) * k) + d * near)
            near = k * (d * d) * (_HALF + d * near)
            value[b] = near if abs(d) < _HALF else far
            noes[b] = no
        for b in range(width):
            loss[b] += value[b]
        for b in range(width):
            z, v = student[c, b] * per_t, teacher[c, b] * per_t
            turned = _ONE if v <= _ZERO else -_ONE
            student[c, b] = temperature * turned * (_logistic(turned * z) - noes[b])
    count_positions(student, loss, factor, temperature * temperature, _ONE)


@jit
def _logistic(x):
    e = exp(-abs(x))
    return (e if x < _ZERO else _ONE) / (_ONE + e)


@jit
def cross_entropy_block(logits, target, factor, loss):
    """factor * -log softmax(logits)[target]; (C, B) ``logits`` become the gradient, (B,) ``loss`` the value.

    Returns:
        How many positions have their largest logit at the target, whatever their factor; a label of -1 has none.
    """
    num_classes, width = logits.shape
    lead, total = np.full(width, _LOWEST, np.float32), np.zeros(width, np.float32)
    best, at_target = np.zeros(width, np.int32), np.zeros(width, np.float32)
    find_largest(logits, best, lead)
    for c in range(num_classes):
        for b in range(width):
            logits[c, b] -= lead[b]
        for b in range(width):
            at_target[b] = logits[c, b] if target[b] == c else at_target[b]
        for b in range(width):
            # The untouched logit joins, so that one that is not a number is not lost in exp.
            total[b] += exp(logits[c, b]) + _ZERO * logits[c, b]
        for b in range(width):
            logits[c, b] = exp(logits[c, b])
    for b in range(width):
        loss[b] = factor[b] * (log(total[b]) - at_target[b]) if factor[b] != _ZERO else _ZERO
    for b in range(width):
        total[b] = factor[b] / total[b] + _ZERO * loss[b]
    for c in range(num_classes):
        for b in range(width):
            value = logits[c, b] * total[b] - (factor[b] if target[b] == c else _ZERO)
            logits[c, b] = value if factor[b] != _ZERO else _ZERO
    correct = 0
    for b in range(width):
        correct += 1 if best[b] == target[b] else 0
    return correct
