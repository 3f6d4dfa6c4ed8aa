"""What is exported: one function from pictures to logits."""
import copy

import torch
from torch import Tensor, nn

from mmseg_kd.teachers.normalization import swaps_channels

from .pooling import DynamicAdaptiveAvgPool2d

__all__ = ['PictureToLogits', 'picture_to_logits']


class PictureToLogits(nn.Module):
    """Pictures (N, 3, H, W), RGB, 0 to 255, float32, to logits: normalisation is inside.

    A segmentor gives (N, C, H, W), its main logits brought to the size of the picture as in its own inference; a
    classifier (N, C). Resizing and padding of pictures, sliding windows and the way back to another size are outside.

    Args:
        model: A plain segmentor or classifier.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        preprocessor = model.data_preprocessor
        # OpenMMLab reads files as BGR; a model that does not swap wants them so.
        self.flip = not swaps_channels(preprocessor)
        mean, std = getattr(preprocessor, 'mean', None), getattr(preprocessor, 'std', None)
        self.register_buffer('mean', None if mean is None else mean.detach().reshape(1, -1, 1, 1).float())
        self.register_buffer('std', None if std is None else std.detach().reshape(1, -1, 1, 1).float())

    def forward(self, image: Tensor) -> Tensor:
        """Compute the logits of pictures (N, 3, H, W)."""
        if self.flip:
            image = image.flip(1)
        if self.mean is not None:
            image = (image - self.mean) / self.std
        return logits_of(self.model, image)


def logits_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """Logits of normalised images (N, 3, H, W): of a segmentor (N, C, H, W), of a classifier (N, C)."""
    if not hasattr(model, 'encode_decode'):
        logits = model(inputs, mode='tensor')
        return logits[0] if isinstance(logits, (tuple, list)) else logits
    size = inputs.shape[2:]
    return model.encode_decode(inputs, [dict(img_shape=size, pad_shape=size, ori_shape=size)])


def picture_to_logits(model: nn.Module) -> PictureToLogits:
    """The graph of a model, whose parts are replaced by equal ones where exporters need pictures of one fixed size.

    Args:
        model: A plain segmentor or classifier, which stays as it is.
    """
    graph = PictureToLogits(copy.deepcopy(model)).eval()
    for module in list(graph.modules()):
        for name, child in module.named_children():
            if type(child) is nn.AdaptiveAvgPool2d:
                setattr(module, name, DynamicAdaptiveAvgPool2d.of(child))
    return graph.requires_grad_(False)


def normalized(model: nn.Module, picture: Tensor) -> Tensor:
    """A picture (3, H, W) as OpenMMLab's pipelines load it (BGR, 0 to 255), through the model's own preprocessor.

    Returns:
        The batch (1, 3, h, w) that the model would see; padding can make it larger.
    """
    with torch.no_grad():
        return model.data_preprocessor(dict(inputs=[picture]), training=False)['inputs']
