"""One small forward pass before training, to see what a network takes and returns."""
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ['input_channels', 'small_pass']

# One of these suits every network that was tried: pyramid pooling wants more than 64, networks for CIFAR exactly 32.
_SIDES = (128, 224, 32, 512)


def input_channels(model: nn.Module) -> int | None:
    """Channels of the images that a network takes: those of its first convolution; None: it has none."""
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    return None if first is None else first.in_channels


@torch.no_grad()
def small_pass(run: Callable[[Tensor], object], model: nn.Module, channels: int | None = None) -> object:
    """What ``run`` returns for a small black image, of the first size that suits the network.

    The pass is in eval mode and without gradient; buffers, random numbers and modes are left as they were.

    Args:
        run: Called with an image (1, C, side, side), of the parameters' type and on their device.
        model: The network that runs.
        channels: C; None: that of :func:`input_channels`, or 3.

    Raises:
        ValueError: no size suits; the message has the last error.
    """
    like = next((value for value in model.parameters() if value.is_floating_point()), torch.empty(0))
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        with torch.random.fork_rng(devices=[]):
            for side in _SIDES:
                image = like.new_zeros((1, channels or input_channels(model) or 3, side, side))
                try:
                    return run(image)
                except Exception as error:  # whatever a network says to a size that does not suit it
                    last = error
    finally:
        for module, training in modes:
            module.training = training
    raise ValueError(f'a forward pass on images of {" or ".join(map(str, _SIDES))} pixels a side ended with '
                     f'{type(last).__name__}: {last}') from last
