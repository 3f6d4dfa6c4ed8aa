"""Kernels that only the interpreter has seen may not compile: they are compiled for GPUs that need not be here."""
import os
import re
import subprocess
import sys

import pytest
from tiny import ROOT

pytest.importorskip('triton', reason='Triton is not installed (it is part of the extra "dev" on Linux)')


def test_kernels_compile_and_spill_no_registers(tmp_path):
    """The kernels with the most code; all of them are compiled by the tool's own defaults, which takes a while."""
    environment = {name: value for name, value in os.environ.items() if name != 'TRITON_INTERPRET'}
    command = 'tools/benchmarks/compile_kernels.py --classes 19 --types bf16 --strides 4 8 --arch 90 --losses'.split()
    done = subprocess.run([sys.executable, *command, 'gdkd both'], cwd=ROOT, text=True, capture_output=True,
                          env={**environment, 'TRITON_CACHE_DIR': str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr
    for kernel in ('bf16', 'stride 4', 'stride 8', 'scaling'):
        assert re.search(rf'{kernel}, sm_90: +[0-9]+ registers, 0 bytes spilled', done.stdout), done.stdout
    # The lanes of a warp are neighbouring positions, in every load.
    assert re.findall(r'(?<=order ).*?(?=, [0-9.]+ instr|$)', done.stdout, re.MULTILINE) == 3 * ['[1, 0]'], done.stdout
