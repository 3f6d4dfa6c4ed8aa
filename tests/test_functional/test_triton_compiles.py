"""Kernels that only the interpreter has seen may not compile: they are compiled for GPUs that need not be here."""
import os
import subprocess
import sys

import pytest
from tiny import ROOT

triton = pytest.importorskip('triton', reason='Triton is not installed (it is part of the extra "dev" on Linux)')


@pytest.mark.parametrize('arguments', [
    ['--losses', 'dkd', 'gdkd3', '--classes', '19', '--types', 'bf16', '--arch', '80'],
    ['--losses', 'gdkd by ratio', 'binary_kl', 'stochastic', '--classes', '150', '--types', 'fp32', '--strides',
     '--arch', '90']], ids=lambda arguments: arguments[-1])
def test_kernels_compile_and_spill_no_registers(arguments, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != 'TRITON_INTERPRET'}
    done = subprocess.run([sys.executable, 'tools/benchmarks/compile_kernels.py', *arguments], cwd=ROOT, text=True,
                          capture_output=True, env={**environment, 'TRITON_CACHE_DIR': str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert f'sm_{arguments[-1]}' in done.stdout and ' 0 bytes spilled' in done.stdout
