"""Adaptive average pooling that ONNX can express for pictures of any size."""
import torch
from torch import Tensor, nn

__all__ = ['DynamicAdaptiveAvgPool2d']


class DynamicAdaptiveAvgPool2d(nn.Module):
    """``nn.AdaptiveAvgPool2d`` as two products with matrices of bin weights, which depend on the size of the input.

    Bin i of o along a side of length n averages the positions from floor(i n / o) to ceil((i + 1) n / o) - 1, as in
    torch; the exporters write out torch's own operator as a fixed list of bins.

    Args:
        output_size: Bins (along the height, along the width).
    """

    def __init__(self, output_size: tuple[int, int]):
        super().__init__()
        self.output_size = output_size

    @classmethod
    def of(cls, pool: nn.AdaptiveAvgPool2d) -> nn.Module:
        """The same pooling; a module that keeps a side as it is (None) is returned itself."""
        size = pool.output_size
        size = (size, size) if isinstance(size, int) else tuple(size)
        return pool if None in size else cls(size)

    def forward(self, maps: Tensor) -> Tensor:
        """Pool maps (N, C, H, W) to (N, C, *output_size)."""
        if self.output_size == (1, 1):
            return maps.mean((2, 3), keepdim=True)
        rows = _bins(maps.shape[2], self.output_size[0], maps)
        columns = _bins(maps.shape[3], self.output_size[1], maps)
        return rows @ maps @ columns.transpose(0, 1)


def _bins(length: int, bins: int, like: Tensor) -> Tensor:
    """Weights (bins, length) whose rows add up to 1."""
    index = torch.arange(bins, device=like.device)
    start, stop = index * length // bins, ((index + 1) * length + bins - 1) // bins
    position = torch.arange(length, device=like.device)
    inside = (position >= start[:, None]) & (position < stop[:, None])
    return inside.to(like.dtype) / (stop - start)[:, None].to(like.dtype)
