"""Where a benchmark ran: what its figures are worth nothing without."""
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

__all__ = ['describe_machine']


def describe_machine(device: str) -> dict:
    """Processor, threads, load, versions and the commit, as JSON takes them."""
    root = Path(__file__).resolve().parents[2]
    command = ['git', '-C', str(root), 'describe', '--always', '--dirty', '--abbrev=12']
    commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    on_gpu = device.startswith('cuda')
    return dict(
        device=torch.cuda.get_device_name() if on_gpu else _processor(), cores=os.cpu_count(),
        threads=torch.get_num_threads(), load_average=os.getloadavg()[0], python=platform.python_version(),
        torch=torch.__version__, triton=_version('triton'), numba=_version('numba'), commit=commit)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return line.split(':')[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
