"""A teacher's own input normalisation, computed from the student's normalised batch."""
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ['Renormalize', 'swaps_channels']


class Renormalize:
    """Turn images normalised for the student into images normalised for the teacher.

    Both data preprocessors map an image to (image - mean) / std, perhaps after swapping RGB and BGR; one affine map per
    channel (and a swap where they differ) leads from one to the other, so no image is decoded or moved twice.

    Args:
        student: The student's data preprocessor.
        teacher: The teacher's data preprocessor. One without ``mean`` takes the student's images as they are.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module):
        # mmseg's name, or mmengine's, which mmdet has.
        self.pad_val = float(getattr(teacher, 'pad_val', getattr(teacher, 'pad_value', 0.)))
        self.swap = False
        self.scale = self.shift = None
        if getattr(teacher, 'mean', None) is None:
            return
        self.swap = swaps_channels(student) != swaps_channels(teacher)
        one = torch.ones_like(teacher.mean)
        mean, std = (one * 0, one) if getattr(student, 'mean', None) is None else (student.mean, student.std)
        mean, std = mean.detach().cpu(), std.detach().cpu()
        if self.swap:
            mean, std = mean.flip(0), std.flip(0)
        scale, shift = std / teacher.std.cpu(), (mean - teacher.mean.cpu()) / teacher.std.cpu()
        if self.swap or not (torch.equal(scale, one.cpu()) and torch.equal(shift, 0 * one.cpu())):
            self.scale, self.shift = scale, shift

    @property
    def is_identity(self) -> bool:
        """Whether both see the same images."""
        return self.scale is None

    def __call__(self, inputs: Tensor, data_samples: Sequence | None = None) -> Tensor:
        """Renormalise a batch.

        Args:
            inputs: Images (N, 3, H, W) as the student sees them.
            data_samples: Their data samples; where ``img_shape`` is smaller than the batch, the rest is padding and
                gets the teacher's padding value.

        Returns:
            Images (N, 3, H, W) as the teacher was trained on.
        """
        if self.is_identity:
            return inputs
        if self.swap:
            inputs = inputs.flip(1)
        outputs = inputs * self.scale.to(inputs) + self.shift.to(inputs)
        for index, sample in enumerate(data_samples or ()):
            right, bottom = _padding(sample.metainfo)
            if bottom:
                outputs[index, :, -bottom:, :] = self.pad_val
            if right:
                outputs[index, :, :, -right:] = self.pad_val
        return outputs


def _padding(metainfo: dict) -> tuple[int, int]:
    """Columns on the right and rows at the bottom that are no image."""
    if 'batch_input_shape' in metainfo:  # mmdet
        (height, width), (rows, columns) = metainfo['batch_input_shape'], metainfo['img_shape'][:2]
        return width - columns, height - rows
    return metainfo.get('padding_size', (0, 0, 0, 0))[1::2]


def swaps_channels(preprocessor: nn.Module) -> bool:
    """Whether a data preprocessor turns BGR into RGB, or the other way."""
    # mmengine's name, that of mmsegmentation 1.2, mmpretrain's.
    return any(getattr(preprocessor, name, False) for name in ('_channel_conversion', 'channel_conversion', 'to_rgb'))
