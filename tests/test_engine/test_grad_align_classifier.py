"""Gradient alignment on an image classifier against a plain transcription."""
import copy

import pytest
import torch
from aligning import AUX, aligned, gradients, objectives
from tiny_cls import build_classifier, classifier, distilled_classifier, image_batch

from mmseg_kd.engine import GradAlignOptimWrapper

pytestmark = pytest.mark.cls
LR = 0.1


def wrapper(model, **settings):
    return GradAlignOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=LR), **settings)


def conflicting(conflict):
    """A linear dual head whose gradient points against the supervised one, or with it."""
    model = build_classifier(distilled_classifier(
        classifier(), classifier(14), distill=AUX, dual_head=dict(kind='linear'))).train()
    model.auxiliary_classifier.weight.data.mul_(3)
    # Large against the auxiliary logits: then the gradient that the classifier sends down is linear in its weights.
    model.teacher.model.head.fc.weight.data.mul_(100)
    s, d = gradients(copy.deepcopy(model), image_batch())
    dot = sum((s[name] * d[name]).sum() for name in s if s[name] is not None and d[name] is not None)
    if (dot < 0) != conflict:
        model.auxiliary_classifier.weight.data.neg_()
    return model


@pytest.mark.parametrize('conflict', [True, False])
@pytest.mark.parametrize('scope', ['shared', 'all'])
def test_alignment_over_parameters_is_the_transcription(scope, conflict):
    model = conflicting(conflict)
    s, d = gradients(copy.deepcopy(model), image_batch())
    shared = [name for name in s if s[name] is not None and d[name] is not None]
    assert (sum((s[name] * d[name]).sum() for name in shared) < 0) == conflict
    assert {name for name in s if name not in shared} == {
        f'{layer}.{part}' for layer in ('head.fc', 'distill.dual_head') for part in ('weight', 'bias')}
    wanted = {name: value.detach() - LR * aligned(s, d, scope)[name] for name, value in model.named_parameters()}
    torch.manual_seed(7)
    model.train_step(image_batch(), wrapper(model, scope=scope))
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.detach(), wanted[name], rtol=1e-5, atol=1e-6)


def test_alignment_at_the_features_is_the_transcription():
    signs = []
    for sign in (1, -1):
        model = conflicting(True)
        model.auxiliary_classifier.weight.data.mul_(sign)
        plain, seen = copy.deepcopy(model), []
        plain.head.fc.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0]))
        s, d = (torch.autograd.grad(loss, seen[0], retain_graph=True)[0] for loss in objectives(plain, image_batch()))
        dot = (s * d).sum()
        signs.append((dot < 0).item())
        pull = s + d - dot.clamp(max=0) / (s * s).sum() * s
        weight = plain.backbone.stem[0].weight
        wanted = weight.detach() - LR * torch.autograd.grad(seen[0], weight, pull)[0]
        torch.manual_seed(7)
        model.train_step(image_batch(), wrapper(model, level='features'))
        torch.testing.assert_close(model.backbone.stem[0].weight.detach(), wanted, rtol=1e-5, atol=1e-6)
    assert sorted(signs) == [False, True], 'one of the two must be in conflict, the other not'
