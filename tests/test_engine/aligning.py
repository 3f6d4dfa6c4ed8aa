"""A dual-head student in or out of conflict, and gradient alignment written out plainly."""
import torch
from tiny import batch, build, distilled, segmentor
from torch import nn

AUX = dict(dhkd=dict(loss=dict(type='mmseg_kd.BinaryKLNormLoss'), on='aux_logits'))


def student(conflict=True, kind='linear', distill=AUX, seed=0, batch_norm=True, **settings):
    """A distilled model in training mode whose two gradients disagree, or agree, on ``batch()``."""
    config = distilled(segmentor(**settings), segmentor(16, 'PSPHead'), distill=distill)
    if kind is not None:
        config['dual_head'] = dict(kind=kind)
    model = build(config, seed).train()
    if not batch_norm:
        fix_batch_norm(model)
    if kind == 'linear':
        # The gradient that this classifier sends down is linear in its weights as long as its logits are small.
        model.auxiliary_classifier.weight.data.mul_(3)
        if (measure(model) < 0) != conflict:
            model.auxiliary_classifier.weight.data.neg_()
        assert (measure(model) < 0) == conflict
    return model


def fix_batch_norm(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def objectives(model, data=None):
    """Supervised and distillation loss of a batch under one seed."""
    data = model.data_preprocessor(data or batch(), True)
    torch.manual_seed(7)
    losses = model.loss(data['inputs'], data['data_samples'])
    return (sum(value for name, value in losses.items() if 'loss' in name and not name.startswith('distill.')),
            sum(value for name, value in losses.items() if name.startswith('distill.loss')))


def gradients(model, data=None):
    """Both gradients, name to tensor or None."""
    names, parameters = zip(*[(name, p) for name, p in model.named_parameters() if p.requires_grad], strict=True)
    supervised, distillation = objectives(model, data)
    s = torch.autograd.grad(supervised, parameters, retain_graph=True, allow_unused=True)
    d = torch.autograd.grad(distillation, parameters, allow_unused=True)
    return dict(zip(names, s, strict=True)), dict(zip(names, d, strict=True))


def measure(model):
    """Inner product of both gradients; leaves the model's statistics as they are."""
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    s, d = gradients(model)
    model.load_state_dict(kept)
    return sum((s[name] * d[name]).sum().item() for name in s if s[name] is not None and d[name] is not None)


def aligned(s, d, scope):
    """The published projection: gradients as long vectors, zeros where an objective does not reach."""
    names = [name for name in s if scope == 'all' or (s[name] is not None and d[name] is not None)]
    dot = square = 0.
    for name in names:
        if s[name] is not None:
            square += (s[name].double() ** 2).sum().item()
            if d[name] is not None:
                dot += (s[name].double() * d[name].double()).sum().item()
    result = {}
    for name in s:
        if s[name] is None and d[name] is None:
            continue
        one = s[name] if s[name] is not None else torch.zeros_like(d[name])
        other = d[name] if d[name] is not None else torch.zeros_like(s[name])
        if dot < 0 and name in names:
            other = other - dot / square * one
        result[name] = one + other
    return result
