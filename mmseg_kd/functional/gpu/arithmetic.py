"""What the kernels need beside Triton's own functions; all of it on float32 tiles."""
import os

import triton
import triton.language as tl

__all__ = ['LN_2', 'LOG2_E', 'exp2', 'kl_term', 'log1p_of_exp', 'logistic', 'total_loss']

LN_2, LOG2_E = tl.constexpr(0.69314718056), tl.constexpr(1.44269504089)
_INTERPRETED = tl.constexpr(os.environ.get('TRITON_INTERPRET') == '1')


@triton.jit
def exp2(x):
    """2^x, 0 below the normal numbers: one instruction, where Triton's own takes four to get those right as well."""
    if _INTERPRETED:
        return tl.exp2(x)
    else:
        return tl.inline_asm_elementwise('ex2.approx.ftz.f32 $0, $1;', '=f,f', [x], dtype=tl.float32, is_pure=True,
                                         pack=1)


@triton.jit
def kl_term(p, q, d):
    """p d - p + q for d = log(p / q), never negative; by a polynomial where the three would cancel.

    The polynomial interpolates (d - 1 + e^-d) / d^2 at the Chebyshev points of |d| <= 5/8 to 1.1e-7 of itself.
    """
    near = 0.0014034922 + d * -0.000200033852
    near = -0.00833309559 + d * near
    near = 0.0416645245 + d * near
    near = -0.166666672 + d * near
    near = 0.5000000465 + d * near
    return tl.where(tl.abs(d) < 0.625, p * (d * d * near), p * d + (q - p))


@triton.jit
def log1p_of_exp(x):
    """log(1 + e^x) for x <= 0, exact to the last digits also where e^x is small."""
    e = exp2(x * LOG2_E)
    # 2 atanh(e / (2 + e)), argument up to 1/3: no 1 + e, which would lose the digits of a small e
    s = e / (2.0 + e)
    square = s * s
    tail = 2.0 / 11 + square * (2.0 / 13)
    tail = 2.0 / 9 + square * tail
    tail = 2.0 / 7 + square * tail
    tail = 2.0 / 5 + square * tail
    tail = 2.0 / 3 + square * tail
    return tail * (square * s) + (s + s)


@triton.jit
def logistic(x):
    """1 / (1 + e^-x)."""
    e = exp2(tl.abs(x) * -LOG2_E)
    return tl.where(x < 0, e, 1.0) / (1.0 + e)


@triton.jit
def total_loss(loss):
    """The sum over a tile in float64, so that no order of summation shows."""
    return tl.sum(loss.to(tl.float64), 0)
