"""Where the Triton kernels are tested: on a GPU where there is one, else on the CPU in Triton's interpreter."""
import pytest
import torch

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
pytest.importorskip('triton', reason='Triton is not installed (it is part of the extra "dev" on Linux)')


def moved(*tensors):
    """Tensors on the device of the tests; None stays."""
    return tuple(None if tensor is None else tensor.to(DEVICE) for tensor in tensors)


@pytest.fixture(autouse=True)
def triton_kernels(monkeypatch):
    """The losses' operators are the Triton kernels, and that is seen: how often they ran."""
    from mmseg_kd.functional import evaluate
    monkeypatch.setenv('MMSEG_KD_KERNELS', 'triton')
    # On a GPU a trial would run kernels, too; it has a test of its own.
    monkeypatch.setattr(evaluate, 'is_on_trial', lambda device: False)
    operators, calls = evaluate.gpu_operators(), []
    for name in ('loss', 'cross_entropy', 'channel_wise'):
        function = getattr(operators, name)
        monkeypatch.setattr(
            operators, name, lambda *args, function=function, **kwargs: calls.append(1) or function(*args, **kwargs))
    return calls


@pytest.fixture
def poisoned(monkeypatch):
    """Memory from torch is full of NaN, or of -77 where it holds integers: what reads it gives itself away."""
    def filled(function):
        def allocate(*args, **kwargs):
            tensor = function(*args, **kwargs)
            return tensor.fill_(torch.nan if tensor.is_floating_point() else -77)
        return allocate

    for place, name in ((torch, 'empty'), (torch, 'empty_like'), (torch.Tensor, 'new_empty')):
        monkeypatch.setattr(place, name, filled(getattr(place, name)))
