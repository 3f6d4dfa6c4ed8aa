"""What a model's main classifier sees, collected while a step runs."""
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

__all__ = ['classifier_inputs']


@contextmanager
def classifier_inputs(classifier: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the inputs of a module while the block runs.

    A hook that lives for one step leaves nothing on the model: inference, copies and exports know nothing of it.

    Args:
        classifier: The main classifier, for instance mmseg's ``conv_seg``; its input is taken after the head's dropout.

    Yields:
        A list that grows by one tensor per call of the module.
    """
    inputs: list[Tensor] = []
    # First in line, so that what is collected is what the head passed, whatever other hooks make of it.
    handle = classifier.register_forward_pre_hook(lambda module, args: inputs.append(args[0]), prepend=True)
    try:
        yield inputs
    finally:
        handle.remove()
