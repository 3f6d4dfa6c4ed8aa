from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from mmseg_kd.engine.unwrapped import unwrapped


def test_a_wrapped_model_and_a_plain_one():
    @MODEL_WRAPPERS.register_module(force=True)
    class Wrapper(nn.Module):

        def __init__(self, module):
            super().__init__()
            self.module = module

    class Holder(nn.Module):  # has a ``module`` and wraps nothing

        def __init__(self, module):
            super().__init__()
            self.module = module

    model = nn.Linear(1, 1)
    assert unwrapped(Wrapper(model)) is model and unwrapped(model) is model
    holder = Holder(model)
    assert unwrapped(holder) is holder
