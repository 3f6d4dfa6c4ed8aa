"""What the blocks of all losses are made of: exp and log in float32 that numba turns into vector instructions (the C
library's are scalar there), the summand of a divergence, and how much each position counts.

The loops here and in the other files are short and touch few arrays each: LLVM makes vector instructions of a loop only
where it can tell at run time, with few comparisons, that its arrays do not overlap.
"""
import math

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ['count_positions', 'exp', 'find_largest', 'inlined', 'jit', 'kl_term', 'log', 'log1p', 'log1p_of_exp']

# A product may be fused with a sum; nothing else may be reordered, or the rounding below would be optimised away.
jit = numba.njit(fastmath={'contract'}, nogil=True, cache=True, error_model='numpy')
inlined = numba.njit(fastmath={'contract'}, nogil=True, inline='always', error_model='numpy')

_INT, _FLOAT = ir.IntType(32), ir.FloatType()


def _constant(value: int) -> ir.Constant:
    return ir.Constant(_INT, value)


@intrinsic
def _two_to_the(typingctx, n):

    def codegen(context, builder, signature, args):
        exponent = builder.add(builder.fptosi(args[0], _INT), _constant(127))
        return builder.bitcast(builder.shl(exponent, _constant(23)), _FLOAT)

    return types.float32(types.float32), codegen


@intrinsic
def _exponent(typingctx, x):

    def codegen(context, builder, signature, args):
        bits = builder.bitcast(args[0], _INT)
        return builder.sitofp(builder.sub(builder.lshr(bits, _constant(23)), _constant(127)), _FLOAT)

    return types.float32(types.float32), codegen


@intrinsic
def _mantissa(typingctx, x):

    def codegen(context, builder, signature, args):
        bits = builder.and_(builder.bitcast(args[0], _INT), _constant(0x7fffff))
        return builder.bitcast(builder.or_(bits, _constant(0x3f800000)), _FLOAT)

    return types.float32(types.float32), codegen


_f = np.float32
_ZERO, _HALF, _ONE = _f(0), _f(.5), _f(1)
# Adding and subtracting 1.5 * 2^23 rounds to an integer.
_ROUND = _f(12582912.)
_LOG2_E, _LN2_HIGH, _LN2_LOW = _f(1.44269504088896341), _f(0.693359375), _f(-2.12194440e-4)
_UNDERFLOW = _f(-87.)
_SQRT_2 = _f(1.41421356237)
# Series, long enough for float32 over the reduced range: e^r for |r| <= ln(2) / 2, and
# 2 atanh(s) = log((1 + s) / (1 - s)).
_E2, _E3, _E4, _E5, _E6, _E7 = (_f(1 / n) for n in (2, 6, 24, 120, 720, 5040))
_L3, _L5, _L7, _L9, _L11, _L13 = (_f(2 / n) for n in (3, 5, 7, 9, 11, 13))
# d - 1 + e^-d = d^2 / 2! - d^3 / 3! + ...
_NEAR = _f(.75)
_S2, _S3, _S4, _S5, _S6, _S7, _S8, _S9 = (_f((-1)**n / math.factorial(n)) for n in range(2, 10))


@inlined
def exp(x):
    """e^x for x up to 88; 0 below -87, where float32 loses its digits, and for NaN."""
    bounded = x if x > _UNDERFLOW else _UNDERFLOW
    n = (bounded * _LOG2_E + _ROUND) - _ROUND
    r = (bounded - n * _LN2_HIGH) - n * _LN2_LOW
    series = (((((_E7 * r + _E6) * r + _E5) * r + _E4) * r + _E3) * r + _E2) * (r * r) + r + _ONE
    value = series * _two_to_the(n)
    return value if x > _UNDERFLOW else _ZERO


@inlined
def log(x):
    """Natural logarithm of a normal number x > 0."""
    n, m = _exponent(x), _mantissa(x)
    large = m > _SQRT_2
    m = m * _HALF if large else m
    n = n + _ONE if large else n
    # log m = 2 atanh((m - 1) / (m + 1)), |.| below 0.172
    s = (m - _ONE) / (m + _ONE)
    square = s * s
    series = (((_L9 * square + _L7) * square + _L5) * square + _L3) * (square * s) + (s + s)
    return n * _LN2_HIGH + (n * _LN2_LOW + series)


@inlined
def log1p_of_exp(x):
    """log(1 + e^x) for x <= 0, exact to the last digits also where e^x is small."""
    return log1p(exp(x))


@inlined
def log1p(x):
    """log(1 + x) for x in [0, 1], exact to the last digits also where x is small."""
    # 2 atanh(x / (2 + x)), argument up to 1/3: no 1 + x, which would lose the digits of a small x
    s = x / (_ONE + _ONE + x)
    square = s * s
    tail = ((((_L13 * square + _L11) * square + _L9) * square + _L7) * square + _L5) * square + _L3
    return tail * (square * s) + (s + s)


@inlined
def kl_term(p, q, d):
    """p d - p + q for d = log(p / q), never negative; by its series where the three would cancel."""
    near = d * d * (_S2 + d * (_S3 + d * (_S4 + d * (_S5 + d * (_S6 + d * (_S7 + d * (_S8 + d * _S9)))))))
    far = p * d + (q - p)
    return p * near if abs(d) < _NEAR else far


@jit
def find_largest(values, row, largest):
    """Where (R, B) ``values`` exceed (B,) ``largest``, note the largest value there and in (B,) ``row`` the first row
    that has it."""
    for r in range(values.shape[0]):
        for b in range(values.shape[1]):
            row[b] = r if values[r, b] > largest[b] else row[b]
        for b in range(values.shape[1]):
            largest[b] = values[r, b] if values[r, b] > largest[b] else largest[b]


@jit
def count_positions(gradient, loss, factor, of_loss, of_gradient):
    """Multiply (B,) ``loss`` with factor * of_loss and (C, B) ``gradient`` with factor * of_gradient.

    Where the factor is 0 both are 0, whatever they hold.
    """
    num_classes, width = gradient.shape
    scale = np.empty(width, np.float32)
    for b in range(width):
        loss[b] = of_loss * factor[b] * loss[b] if factor[b] != _ZERO else _ZERO
    for b in range(width):
        # A loss that is not a number has a gradient that is none: nobody shall step on it unseen.
        scale[b] = of_gradient * factor[b] + _ZERO * loss[b]
    for c in range(num_classes):
        for b in range(width):
            gradient[c, b] = gradient[c, b] * scale[b] if factor[b] != _ZERO else _ZERO
