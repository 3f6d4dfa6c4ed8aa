"""The operators on a CPU: machine code made by numba, which needs no compiler on the user's machine.

The first call on a machine compiles for about ten seconds; numba keeps the result on disk.
"""
