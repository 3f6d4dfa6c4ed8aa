"""A generated image classification task and a small network for it, for `dual_head_conflict.py`."""
import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ['ToyImages', 'ToyNetwork']


class ToyImages:
    """Noisy, shifted, mixed templates: 20 classes of 16x16 grey pictures, hard enough that a small network stays below
    100 %.

    Args:
        number: How many pictures.
        seed: Of their draw; the templates are always the same.
    """

    num_classes = 20

    def __init__(self, number: int, seed: int):
        templates = F.interpolate(
            torch.randn(self.num_classes, 1, 6, 6, generator=torch.Generator().manual_seed(0)), size=(20, 20),
            mode='bicubic')
        generator = torch.Generator().manual_seed(seed)

        def draw(high, size=(number,)):
            return torch.randint(high, size, generator=generator)
        self.labels, other = draw(self.num_classes), draw(self.num_classes)
        # Another class shines through, which makes classes similar to each other, as a teacher can tell.
        share = 0.45 * torch.rand(number, 1, 1, 1, generator=generator)
        mixed = (1 - share) * templates[self.labels] + share * templates[other]
        rows, columns = draw(5), draw(5)
        images = torch.stack([image[:, y:y + 16, x:x + 16]
                              for image, y, x in zip(mixed, rows.tolist(), columns.tolist(), strict=True)])
        self.images = images + 0.8 * torch.randn(images.shape, generator=generator)


class ToyNetwork(nn.Module):
    """Three convolutions, average pooling and a linear classifier.

    Args:
        width: Channels of the first convolution.
        num_classes: Outputs.
    """

    def __init__(self, width: int, num_classes: int = ToyImages.num_classes):
        super().__init__()
        layers, channels = [], 1
        for index in range(3):
            layers += [nn.Conv2d(channels, width << index, 3, 1 if index == 0 else 2, 1, bias=False),
                       nn.BatchNorm2d(width << index), nn.ReLU()]
            channels = width << index
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.main = nn.Linear(channels, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Input (N, D) of the classifier from images (N, 1, 16, 16)."""
        return self.trunk(images)
