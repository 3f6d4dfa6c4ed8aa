"""A teacher's own input normalisation, computed from the student's normalised batch."""
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ['AS_IT_IS', 'Renormalize', 'swaps_channels']


class Renormalize:
    """Turn images normalised for the student into images normalised for the teacher.

    Both data preprocessors map an image to (image - mean) / std, perhaps after swapping RGB and BGR; one affine map per
    channel (and a swap where they differ) leads from one to the other, so no image is decoded or moved twice. A
    preprocessor without ``mean`` leaves the pixels as they are, 0 to 255.

    Args:
        student: The student's data preprocessor.
        teacher: The teacher's data preprocessor.

    Attributes:
        is_identity: Whether both see the same images, padding included.
    """

    def __init__(self, student: object, teacher: object):
        self.pad_val = _pad_value(teacher)
        self.swap = swaps_channels(student) != swaps_channels(teacher)
        self.scale = self.shift = None
        (mean, std), (own_mean, own_std) = _statistics(student, self.swap), _statistics(teacher, False)
        scale, shift = std / own_std, (mean - own_mean) / own_std
        self._same_pixels = not self.swap and bool((scale == 1).all() and (shift == 0).all())
        self.is_identity = self._same_pixels and self.pad_val == _pad_value(student)
        if not self._same_pixels:
            self.scale, self.shift = scale, shift

    def __call__(self, inputs: Tensor, data_samples: Sequence | None = None) -> Tensor:
        """Renormalise a batch.

        Args:
            inputs: Images (N, 3, H, W) as the student sees them.
            data_samples: Their data samples; what they say is padding gets the teacher's padding value.

        Returns:
            Images (N, 3, H, W) as the teacher was trained on.
        """
        if self.is_identity:
            return inputs
        padding = [_padding(sample.metainfo) for sample in data_samples or ()]
        if self._same_pixels:
            # The student looks at these images as well.
            outputs = inputs.clone() if any(map(any, padding)) else inputs
        else:
            outputs = (inputs.flip(1) if self.swap else inputs) * self.scale.to(inputs) + self.shift.to(inputs)
        for index, (right, bottom) in enumerate(padding):
            if bottom:
                outputs[index, :, -bottom:, :] = self.pad_val
            if right:
                outputs[index, :, :, -right:] = self.pad_val
        return outputs


def _pad_value(preprocessor: nn.Module) -> float:
    # mmseg's name, or mmengine's, which mmdet has.
    return float(getattr(preprocessor, 'pad_val', getattr(preprocessor, 'pad_value', 0.)))


def _statistics(preprocessor: nn.Module, swapped: bool) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, (C, 1, 1), or those that change nothing; on the CPU."""
    mean, std = (getattr(preprocessor, name, None) for name in ('mean', 'std'))
    if mean is None or std is None:
        return torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    mean, std = mean.detach().cpu(), std.detach().cpu()
    return (mean.flip(0), std.flip(0)) if swapped else (mean, std)


def _padding(metainfo: dict) -> tuple[int, int]:
    """Columns on the right and rows at the bottom that are not part of the image."""
    if 'batch_input_shape' in metainfo:  # mmdet
        (height, width), (rows, columns) = metainfo['batch_input_shape'], metainfo['img_shape'][:2]
        return width - columns, height - rows
    # mmseg's name at test time, then that of training.
    return tuple(metainfo.get('img_padding_size', metainfo.get('padding_size', (0, 0, 0, 0)))[1::2])


def swaps_channels(preprocessor: nn.Module) -> bool:
    """Whether a data preprocessor turns BGR into RGB, or the other way."""
    # mmengine's name, that of mmsegmentation 1.2, mmpretrain's.
    return any(getattr(preprocessor, name, False) for name in ('_channel_conversion', 'channel_conversion', 'to_rgb'))


#: Teacher and student see the same images.
AS_IT_IS = Renormalize(None, None)
