"""Peak memory of a run on a CPU."""
import subprocess
import sys

import pytest
import torch

# Grows by 512 MiB that are freed again before the hook looks; the kernel's own record of the peak is VmHWM, in KiB.
CODE = '''
import resource
from types import SimpleNamespace
from mmengine.logging import MessageHub
from mmseg_kd.engine import PeakMemoryHook
runner = SimpleNamespace(message_hub=MessageHub.get_instance('peak'))
hook = PeakMemoryHook()
hook.after_train_iter(runner, 0)
bytearray(b'1') * (512 << 20)
hook.after_train_iter(runner, 1)
first, second = runner.message_hub.get_scalar('train/memory')._log_history
kernel = next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'))
print(first, second, int(kernel) / 1024)
'''


@pytest.mark.skipif(sys.platform != 'linux', reason='reads the peak from /proc')
@pytest.mark.skipif(torch.cuda.is_available(), reason='mmengine itself logs the memory of a GPU')
def test_logs_the_peak_in_mebibytes():
    # A process that was larger than the run ever is, started it.
    starter = ('import subprocess, sys; large = b"1" * (2 << 30)\n'
               f'sys.exit(subprocess.call([sys.executable, "-c", {CODE!r}]))')
    output = subprocess.run([sys.executable, '-c', starter], text=True, capture_output=True, check=True).stdout
    first, second, kernel = map(float, output.split())
    assert second == pytest.approx(kernel, abs=2)
    assert max(first, 512) < second < 2048
