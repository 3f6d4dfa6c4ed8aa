"""The model of a run, whatever trains it in several processes."""
from mmengine.model import is_model_wrapper
from torch import nn

__all__ = ['unwrapped']


def unwrapped(model: nn.Module) -> nn.Module:
    """The model in a wrapper, such as ``MMDistributedDataParallel``; another model is returned as it is."""
    return model.module if is_model_wrapper(model) else model
