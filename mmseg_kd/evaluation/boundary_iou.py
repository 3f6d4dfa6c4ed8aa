"""IoU of the rims of segments, where small networks lose first."""
import cv2
import numpy as np

__all__ = ['BoundaryIoU', 'boundary']


def boundary(mask: np.ndarray, width: int) -> np.ndarray:
    """The pixels of a mask within ``width`` pixels of its contour, the image border included.

    Args:
        mask: (H, W) bool.
        width: d, at least 1; distance in steps to any of 8 neighbours.

    Returns:
        (H, W) bool.
    """
    # Beyond the image there is nothing of the segment, so its pixels at the border are rim.
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width, borderType=cv2.BORDER_CONSTANT,
                      borderValue=0)
    return mask & (inner[1:-1, 1:-1] == 0)


class BoundaryIoU:
    r"""Boundary IoU of each class, gathered image by image.

    With G_d and P_d the pixels of ground truth and prediction within d of the contour of their own segment,

    .. math:: \frac{| (G_d \cap G) \cap (P_d \cap P) |}{| (G_d \cap G) \cup (P_d \cap P) |}

    for semantic segmentation per class, with the class's pixels of an image as one mask, and intersections and unions
    summed over the data set, as mIoU sums them. d is 2 % of the image's diagonal, at least 1 pixel. Ignored pixels are
    in no mask.

    Reference: Cheng et al., Boundary IoU: Improving Object-Centric Image Segmentation Evaluation, CVPR 2021.

    Args:
        num_classes: C.
        ratio: d over the diagonal.
    """

    def __init__(self, num_classes: int, ratio: float = 0.02):
        self.num_classes = num_classes
        self.ratio = ratio
        self._intersection = np.zeros(num_classes)
        self._union = np.zeros(num_classes)

    def update(self, predicted: np.ndarray, labels: np.ndarray) -> None:
        """Add an image.

        Args:
            predicted: (H, W) class indices.
            labels: (H, W) class indices; anything else is ignored.
        """
        width = max(1, round(self.ratio * float(np.hypot(*labels.shape))))
        valid = (labels >= 0) & (labels < self.num_classes)
        for c in np.union1d(predicted[valid], labels[valid]):
            one, other = (boundary((each == c) & valid, width) for each in (predicted, labels))
            self._intersection[c] += (one & other).sum()
            self._union[c] += (one | other).sum()

    @property
    def of_class(self) -> np.ndarray:
        """(C,) in [0, 1]; NaN for a class that was neither labelled nor predicted."""
        return np.divide(self._intersection, self._union, out=np.full(self.num_classes, np.nan),
                         where=self._union > 0)
