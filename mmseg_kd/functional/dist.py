"""DIST: correlation instead of equality, over the classes and over the positions."""
import torch
from torch import Tensor

from .checks import checked, loss_function
from .evaluate import reduced
from .standardize import z_score


def correlation_distance(student: Tensor, teacher: Tensor, member: Tensor) -> Tensor:
    """1 - Pearson's correlation over the members of dimension 1.

    As half the mean squared distance of the z-scores, which is exactly 0 for equal rows. A teacher's row without spread
    has no relation to match and gives 0; a student's row without spread has correlation 0 with any other.
    """
    count = member.sum(1).clamp(min=1)
    s, t = z_score(student, member).masked_fill(~member, 0.), z_score(teacher, member).masked_fill(~member, 0.)
    half_distance = 0.5 * (s - t).square().sum(1) / count
    flat_student, flat_teacher = (s == 0).all(1), (t == 0).all(1)
    return (half_distance + 0.5 * flat_student.to(s.dtype)).masked_fill(flat_teacher, 0.)


def dist_map(student: Tensor, teacher: Tensor, valid: Tensor, *, beta: float, gamma: float,
             temperature: float) -> Tensor:
    """DIST per position, (N, *), of checked logits; the intra-class term is the same at every position.

    In float64 whatever the type of the logits: a class whose probability is near 1 at all positions varies by less
    than float32 can tell, yet its correlation counts as much as any other.
    """
    if valid.numel() == 0:
        return student.sum(1) * 0.
    log_q, log_p = ((logits.double() / temperature).log_softmax(1) for logits in (student, teacher))
    inter = correlation_distance(log_q.exp(), log_p.exp(), torch.ones_like(valid).unsqueeze(1).expand_as(log_p))
    member = valid.flatten().unsqueeze(0)  # rows are classes from here on, (C, positions)
    intra = correlation_distance(_of_each_class(log_q, member), _of_each_class(log_p, member), member).mean()
    return (temperature**2 * (beta * inter + gamma * intra)).to(student.dtype)


def _of_each_class(log_p: Tensor, member: Tensor) -> Tensor:
    """Probabilities of each class at all positions, (C, positions), relative to its greatest.

    A correlation does not see the scale, and a class that is nowhere likely would underflow without it.
    """
    rows = log_p.transpose(0, 1).flatten(1)
    greatest = rows.detach().masked_fill(~member, -torch.inf).amax(1, keepdim=True)
    return (rows - greatest).masked_fill(~member, 0.).exp()


@loss_function
def dist_loss(student: Tensor,
              teacher: Tensor,
              target: Tensor | None = None,
              weight: Tensor | None = None,
              *,
              beta: float = 1.,
              gamma: float = 1.,
              temperature: float = 1.,
              ignore_index: int | None = 255,
              reduction: str = 'mean') -> Tensor:
    r"""DIST: one minus correlation of the probabilities, over the classes (inter) and over the positions (intra).

    .. math:: L = T^2 \Bigl[ \frac{\beta}{B} \sum_i d(q_{i,:}, p_{i,:}) + \frac{\gamma}{C} \sum_c d(q_{:,c}, p_{:,c})
              \Bigr], \qquad d(a, b) = 1 - \mathrm{corr}(a, b)

    q and p are the probabilities of student and teacher at temperature T, i runs over the B *valid* positions of the
    batch, c over the classes; corr is Pearson's correlation. A row in which the teacher has no spread counts 0.

    The inter-class term is a mean over valid positions as everywhere in the family. The intra-class term is a
    statistic of the batch, one correlation per class over all valid positions: ignored positions do not matter, but
    which positions share a batch does. In 'none' and 'sum' it is added to each valid position, so that 'mean' is the
    loss above.

    Reference: Huang et al., Knowledge Distillation from A Stronger Teacher, NeurIPS 2022, section 4; beta = gamma = 1,
    T = 1, on CIFAR-100 2, 2, T = 4.

    Args:
        student: (N, C) or (N, C, *) logits of any floating type; the arithmetic is float32 or better.
        teacher: logits of the same shape, without gradient.
        target: (N, *) int64 labels; not needed, but positions labelled ``ignore_index`` are left out.
        weight: (N, *) factor of each position; 0 leaves it out of both terms.
        beta: weight of the inter-class term.
        gamma: weight of the intra-class term.
        temperature: T > 0.
        ignore_index: label of the positions that do not count; None when all count.
        reduction: 'mean' over valid positions, 'sum', or 'none' for an (N, *) map.

    Raises:
        ValueError: a setting or a tensor that does not fit; the message says which and what to do.

    Example:
        >>> import torch
        >>> teacher = torch.tensor([[2., 1., 0.], [0., 2., 1.]])
        >>> dist_loss(teacher.flip(1), teacher)
        tensor(2.3344)
    """
    inputs = checked(student, teacher, target, weight, ignore_index, reduction)
    return reduced(lambda student, teacher: dist_map(student, teacher, inputs.valid, beta=beta, gamma=gamma,
                                                     temperature=temperature), inputs)
