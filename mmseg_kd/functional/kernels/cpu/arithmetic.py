"""exp and log in float32 that numba turns into vector instructions; the C library's are scalar there."""
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ['exp', 'inlined', 'jit', 'log', 'log1p_of_exp']

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
    e = exp(x)
    # 2 atanh(e / (2 + e)), argument up to 1/3: no 1 + e, which would lose the digits of a small e
    s = e / (_ONE + _ONE + e)
    square = s * s
    tail = ((((_L13 * square + _L11) * square + _L9) * square + _L7) * square + _L5) * square + _L3
    return tail * (square * s) + (s + s)

