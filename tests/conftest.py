import os

# Two torch processes on two cores spin against each other (16 times slower) unless idle OpenMP threads sleep.
# Both must be set before torch is imported.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
os.environ.setdefault('OMP_NUM_THREADS', '2')
os.environ.setdefault('MPLBACKEND', 'Agg')

import pytest  # noqa: E402
import torch  # noqa: E402

# Triton reads this once, when whichever test first imports it; without a GPU its kernels are interpreted.
if not torch.cuda.is_available():
    os.environ.setdefault('TRITON_INTERPRET', '1')


@pytest.fixture(scope='session')
def mini_cityscapes(tmp_path_factory):
    """A generated mini-Cityscapes: 12 training and 4 validation pictures of 32x64."""
    from mmseg_kd.datasets import generate_mini_cityscapes
    root = tmp_path_factory.mktemp('data') / 'mini_cityscapes'
    generate_mini_cityscapes(root, num_train=12, num_val=4, size=(32, 64), seed=0)
    return root
