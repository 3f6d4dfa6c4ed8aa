"""The operators on a GPU: Triton kernels.

They compute what the CPU's do (:mod:`..cpu`), for float32, bfloat16 and float16 logits with arithmetic in float32. They
have been compared with the plain forms in Triton's interpreter and compiled for sm_80 and sm_90, and have **not yet
run on a GPU**.
"""
