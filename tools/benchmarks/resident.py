"""Peak of a process's resident memory, on Linux."""
from pathlib import Path
from typing import Callable

__all__ = ['EXACT', 'extra_peak']

#: Environment of a process whose resident memory falls when a tensor is freed: the C library keeps blocks otherwise.
EXACT = dict(MALLOC_MMAP_THRESHOLD_='65536', MALLOC_TRIM_THRESHOLD_='65536')


def extra_peak(run: Callable[[], None]) -> int:
    """Bytes that a call needs at its peak beyond what the process has when it begins."""
    Path('/proc/self/clear_refs').write_text('5')  # the peak begins anew
    before = _status('VmRSS')
    run()
    return _status('VmHWM') - before


def _status(field: str) -> int:
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise SystemExit(f'/proc/self/status has no {field}: memory is measured only on Linux')
