"""Neural collapse: how far features and classifier have gone to their simplest form."""
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ['Collapse', 'balanced_sample', 'neural_collapse']


class Collapse(NamedTuple):
    """NC1 to NC4; all of them are 0 in full collapse. Per class: (C,) float64, NaN for a class without features.

    Attributes:
        nc1: Tr(S_W S_B^+) / C: spread within the classes over the spread of their means.
        nc1_trace: Tr S_W / Tr S_B: the same without the inverse, in which the direction that tells two classes apart
            least counts most.
        nc2_norm: Standard deviation over mean of the lengths of the class means.
        nc2_angle: Mean over pairs of classes of ``|cos + 1 / (C - 1)|``: distance from the largest equal angle.
        nc3: ``|| W / ||W|| - M / ||M|| ||^2``: distance between classifier and class means.
        nc4: Share of features where the classifier and the nearest class mean name different classes.
        nc1_of_class: NC1 with S_W of one class.
        nc1_trace_of_class: The same for ``nc1_trace``.
        nc3_of_class: 1 - cosine between a class's weights and its mean.
        nc4_of_class: NC4 among the features of one class.
    """

    nc1: float
    nc1_trace: float
    nc2_norm: float
    nc2_angle: float
    nc3: float
    nc4: float
    nc1_of_class: Tensor
    nc1_trace_of_class: Tensor
    nc3_of_class: Tensor
    nc4_of_class: Tensor


@torch.no_grad()
def neural_collapse(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None = None) -> Collapse:
    r"""Measure neural collapse of a layer's features before a linear classifier.

    With mu_c the mean feature of class c, mu_G the mean of the class means, m_c = mu_c - mu_G, and every class counting
    alike whatever the number of its features:

    .. math:: S_W = \mathrm{Ave}_c \mathrm{Ave}_{i \in c} (h_i - \mu_c)(h_i - \mu_c)^T, \qquad
              S_B = \mathrm{Ave}_c \, m_c m_c^T

    NC1 is :math:`\mathrm{Tr}(S_W S_B^+) / C`, without the inverse it is
    :math:`\mathrm{Tr} S_W / \mathrm{Tr} S_B`. NC2 compares the lengths of the m_c and their angles with those of a
    simplex, whose cosines are -1 / (C - 1); NC3 compares the classifier's weights with the m_c, both scaled to
    Frobenius norm 1; NC4 compares :math:`\arg\max_c \langle w_c, h \rangle + b_c` with
    :math:`\arg\min_c \| h - \mu_c \|`. C counts the classes that have features.

    Reference: Papyan, Han and Donoho, Prevalence of neural collapse during the terminal phase of deep learning
    training, PNAS 2020: NC1 as in its figure 6, NC2 as in figures 2 and 4, NC3 as in figure 5, NC4 as in figure 7.

    Args:
        features: (n, D), what the classifier reads.
        labels: (n,) class indices.
        weight: (K, D) of the classifier.
        bias: (K,); None: zeros.

    Raises:
        ValueError: fewer than two classes have features.
    """
    features, weight = features.double(), weight.double()
    bias = torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias.double()
    present = labels.unique()
    if len(present) < 2:
        raise ValueError(f'`labels`: neural collapse compares classes, expected at least 2, got {present.tolist()}.')
    number, index = len(present), torch.searchsorted(present, labels)
    count = torch.bincount(index).double()
    means = torch.zeros(number, features.shape[1], dtype=torch.float64).index_add_(0, index, features) / count[:, None]
    centred = means - means.mean(0)
    inverse = torch.linalg.pinv(centred.T @ centred / number, hermitian=True)
    within = features - means[index]
    # The trace is a mean of quadratic forms; no covariance of a single class has to be made.
    forms = ((within @ inverse) * within).sum(1)
    of_class = torch.zeros(number, dtype=torch.float64).index_add_(0, index, forms) / count / number
    scatter = torch.zeros(number, dtype=torch.float64).index_add_(0, index, within.square().sum(1)) / count

    lengths = centred.norm(dim=1)
    cosines = (centred @ centred.T) / (lengths[:, None] * lengths)
    pairs = cosines[~torch.eye(number, dtype=torch.bool)]
    rows = weight[present]
    alike = (rows * centred).sum(1) / (rows.norm(dim=1) * lengths)
    decided = (features @ weight.T + bias).argmax(1)
    nearest = present[torch.cdist(features, means).argmin(1)]
    differ = (decided != nearest).double()
    nc4 = torch.zeros(number, dtype=torch.float64).index_add_(0, index, differ) / count

    between = lengths.square().mean()

    def spread(values: Tensor) -> Tensor:
        return torch.full((len(weight), ), torch.nan, dtype=torch.float64).index_copy_(0, present, values)

    return Collapse(
        nc1=of_class.mean().item(), nc1_trace=(scatter.mean() / between).item(),
        nc2_norm=(lengths.std(correction=0) / lengths.mean()).item(),
        nc2_angle=(pairs + 1 / (number - 1)).abs().mean().item(),
        nc3=(rows / rows.norm() - centred / centred.norm()).square().sum().item(), nc4=nc4.mean().item(),
        nc1_of_class=spread(of_class), nc1_trace_of_class=spread(scatter / between), nc3_of_class=spread(1 - alike),
        nc4_of_class=spread(nc4))


def balanced_sample(labels: Tensor, per_class: int, generator: torch.Generator | None = None,
                    ignore_index: int | None = None) -> Tensor:
    """Indices of at most ``per_class`` random positions of every class, so that no large class speaks for all.

    Args:
        labels: (n,) class indices; negative ones are left out.
        per_class: How many.
        generator: Source of the choice.
        ignore_index: The label without a class, which is left out; None: there is none (ImageNet has a class 255).
    """
    order = torch.randperm(len(labels), generator=generator)
    chosen = [order[labels[order] == c][:per_class] for c in labels.unique().tolist() if c >= 0 and c != ignore_index]
    return torch.cat(chosen) if chosen else order[:0]
