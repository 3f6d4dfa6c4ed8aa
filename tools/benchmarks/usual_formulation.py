"""The losses as published code has them: the other side of the benchmark, written down from the papers' formulas.

Logits go to (N * H * W, C), masks are one-hot maps, classes are taken out of a softmax by -1000, divergences come from
``F.kl_div``. No ignored labels and no care for confident teachers, as there.
"""
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ['USUAL']

_AWAY = 1000.


def _rows(logits: Tensor) -> Tensor:
    return logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1])


def kd(student: Tensor, teacher: Tensor, target: Tensor, temperature: float) -> Tensor:
    student, teacher = _rows(student) / temperature, _rows(teacher) / temperature
    divergence = F.kl_div(F.log_softmax(student, 1), F.softmax(teacher, 1), reduction='none')
    return divergence.sum(1).mean() * temperature**2


def _decoupled(student: Tensor, teacher: Tensor, inside: Tensor, between: float, outer: float, inner: float,
               temperature: float) -> Tensor:
    """Between a mask and its complement, within the complement, and within the mask where ``inner`` is not 0."""
    rows, count = (_rows(student) / temperature, _rows(teacher) / temperature), len(student) * student[0, 0].numel()
    masses = []
    for row in rows:
        probability = F.softmax(row, 1)
        masses.append(torch.stack([(probability * inside).sum(1), (probability * ~inside).sum(1)], 1))
    loss = between * F.kl_div(masses[0].log(), masses[1], reduction='sum')
    for weight, away in ((outer, inside), (inner, ~inside)):
        if weight:
            student_part = F.log_softmax(rows[0] - _AWAY * away, 1)
            loss = loss + weight * F.kl_div(student_part, F.softmax(rows[1] - _AWAY * away, 1), reduction='sum')
    return loss * temperature**2 / count


def dkd(student: Tensor, teacher: Tensor, target: Tensor, temperature: float) -> Tensor:
    inside = torch.zeros_like(_rows(student)).scatter_(1, target.reshape(-1, 1), 1).bool()
    return _decoupled(student, teacher, inside, 1., 8., 0., temperature)


def gdkd(student: Tensor, teacher: Tensor, target: Tensor, temperature: float) -> Tensor:
    best = _rows(teacher).topk(5, 1).indices
    inside = torch.zeros_like(_rows(student)).scatter_(1, best, 1).bool()
    return _decoupled(student, teacher, inside, 1., 8., 2., temperature)


def binary_kl_norm(student: Tensor, teacher: Tensor, target: Tensor, temperature: float) -> Tensor:
    chance = torch.sigmoid((_rows(student) - _rows(teacher)) / temperature).clamp(1e-7, 1 - 1e-7)
    half = torch.full_like(chance, .5)
    divergence = half * (half / chance).log() + (1 - half) * ((1 - half) / (1 - chance)).log()
    return divergence.sum(1).mean() * temperature**2


def cwd(student: Tensor, teacher: Tensor, target: Tensor, temperature: float) -> Tensor:
    channels = student.shape[0] * student.shape[1]
    student, teacher = (logits.reshape(channels, -1) / temperature for logits in (student, teacher))
    log_p = F.log_softmax(teacher, 1)
    return (F.softmax(teacher, 1) * (log_p - F.log_softmax(student, 1))).sum() * temperature**2 / channels


def dgkd(student: Tensor, teacher: Tensor, target: Tensor, temperature: float) -> Tensor:
    inside = torch.zeros_like(_rows(student)).scatter_(1, target.reshape(-1, 1), 1).bool()
    parts = [_decoupled(student, teacher, inside, *weights, 0., temperature) for weights in ((1., 0.), (0., 1.))]
    # Of the sums, not of the mean: its 1 / N would make the gradients vanish beside the 1e-8.
    count = len(student) * student[0, 0].numel()
    gradients = [torch.autograd.grad(count * part, student, create_graph=True)[0] for part in parts]
    distance = F.mse_loss(*gradients)
    return parts[0] + parts[1] - 6 * distance / (distance.detach() + 1e-8)


USUAL = dict(kd=kd, dkd=dkd, gdkd=gdkd, binary_kl_norm=binary_kl_norm, cwd=cwd, dgkd=dgkd)
