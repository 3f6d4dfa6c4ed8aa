"""Stochastic GDKD: the target class against a random part of the rest."""
from torch import Tensor

from .checks import checked, loss_function, warn_once
from .evaluate import loss_of
from .grouped import GroupedLoss, RandomPart
from .upsampled import Logits


@loss_function
def stochastic_gdkd_loss(student: Logits,
                         teacher: Logits,
                         target: Tensor | None = None,
                         weight: Tensor | None = None,
                         *,
                         keep: float = 0.75,
                         one_out: bool = False,
                         w0: float = 1.,
                         w1: float = 8.,
                         divergence: str = 'forward',
                         temperature: float = 4.,
                         standardize: str | None = None,
                         ignore_index: int | None = 255,
                         reduction: str = 'mean') -> Tensor:
    r"""GDKD against a random part of the classes: {target}, {random subset of the rest}, {ignored rest}.

    .. math:: L = T^2 [ w_0 \, KL(b^v \| b^z) + w_1 \, D(p^v_S \| p^z_S) ]

    S is the subset: each class but the target belongs to it with probability ``keep``, drawn anew for each position and
    call from torch's generator (``torch.manual_seed``). In the published code one class is never kept, drawn evenly
    from all classes (where it is the target, the class after it): ``one_out`` does that, by a plain form, which on
    large maps is slower. b = (probability of the target, of S, of what is left), p_S the distribution inside S;
    what happens inside what is left is ignored. z student, v teacher, both at temperature T. D is the Kullback-Leibler
    divergence in the direction ``divergence``. With keep = 1 it is DKD with alpha = w0, beta = w1.

    Reference: the stochastic variant in the code of GDKD (Zheng and Cheng, 2025, arXiv 2512.04625); keep = 0.75,
    w0 = 1, w1 = 8, T = 4, one class out.

    Args:
        student: (N, C) or (N, C, *) logits of any floating type; the arithmetic is float32 or better. Small logits of
            (N, C, H, W) positions may be :class:`~.Upsampled`.
        teacher: logits of the same shape, without gradient.
        target: (N, *) int64 labels in 0 .. C - 1, or ``ignore_index``. Needed.
        weight: (N, *) factor of each position; 0 leaves it out.
        keep: probability of each other class to belong to S, in (0, 1].
        one_out: whether one class is left out of S in any case, as published.
        w0: weight between target, S and what is left.
        w1: weight within S; that term is 0 where S is one class or none, thus always when C = 2.
        divergence: 'forward' KL(teacher || student), 'reverse' KL(student || teacher) or 'both', their mean, within S.
        temperature: T > 0.
        standardize: None, 'whole', 'group' or 'rest' (S): z-score of the logits first.
        ignore_index: label of the positions that do not count; None when all count.
        reduction: 'mean' over valid positions, 'sum', or 'none' for an (N, *) map.

    Raises:
        ValueError: a setting or a tensor that does not fit; the message says which and what to do.

    Example:
        >>> import torch
        >>> student, teacher = torch.zeros(1, 3), torch.tensor([[4., 2., 0.]])
        >>> stochastic_gdkd_loss(student, teacher, torch.tensor([0]), keep=1.)
        tensor(4.8939)
    """
    inputs = checked(student, teacher, target, weight, ignore_index, reduction, target_for='stochastic_gdkd_loss')
    if student.shape[1] == 2:
        warn_once('stochastic_gdkd_loss: with C = 2 classes the term within the others is 0 by construction, '
                  '`w1` has no effect')
    loss = GroupedLoss(RandomPart(keep, one_out), w0, (0., 0., w1), temperature, divergence, standardize)
    return loss_of(loss, inputs)
