"""The operators that make per-pixel distillation fast: value and gradient of a loss in one visit to the logits.

The plain forms in the files above define what is computed; an operator must agree with them. It takes over where it
can (:func:`.dispatch.operators_for`), and never for float64, under ``torch.func`` transforms or ``torch.compile``;
second derivatives are the plain forms' as well. CWD (:mod:`.channelwise`) and DGKD's coupling term (:mod:`.coupling`)
have operators in PyTorch, block by block, for any device. ``MMSEG_KD_KERNELS=naive`` in the environment leaves all to
the plain forms; ``MMSEG_KD_KERNELS=triton`` with ``TRITON_INTERPRET=1`` takes tensors on the CPU through the GPU's
kernels in Triton's interpreter, which is slow and for tests.
"""
from .dispatch import fused_or_plain
from .spec import LossSpec

__all__ = ['LossSpec', 'fused_or_plain']
