"""The same modules in other houses: the calls that mmdet and mmrazor make, and plain PyTorch."""
import inspect

import pytest
import torch
from loss_cases import FAMILY, NUM_CLASSES, each_loss, maps, value_and_gradient
from torch.testing import assert_close

from mmseg_kd import losses
from mmseg_kd.registry import MODELS


@pytest.mark.parametrize('name', [
    'KDLoss', 'GDKDLoss', 'GDKD3Loss', 'BinaryKLLoss', 'BinaryKLNormLoss', 'LogitMSELoss'])
def test_as_loss_ld_of_mmdet(name):
    """LDHead: logits of 4 edges per box, (4 n, bins), a weight each, avg_factor 4; no labels."""
    torch.manual_seed(0)
    boxes, bins = 5, 17
    corners, soft_corners = torch.randn(4 * boxes, bins, requires_grad=True), torch.randn(4 * boxes, bins)
    scores = torch.rand(boxes)
    loss_ld = MODELS.build(dict(type=f'mmseg_kd.{name}', loss_weight=0.25))
    value = loss_ld(corners, soft_corners, weight=scores[:, None].expand(-1, 4).reshape(-1), avg_factor=4.0)
    one = MODELS.build(dict(type=f'mmseg_kd.{name}', reduction='none'))(corners, soft_corners)
    assert_close(value, 0.25 * (one.view(boxes, 4).sum(1) * scores).sum() / 4)
    value.backward()
    assert corners.grad.isfinite().all()
    tensor_factor = loss_ld(corners, soft_corners, weight=scores.repeat_interleave(4), avg_factor=torch.tensor(4.))
    assert_close(tensor_factor, value)
    no_box = loss_ld(corners[:0], soft_corners[:0], weight=scores[:0], avg_factor=4.0)
    assert no_box == 0 and no_box.requires_grad


class _Distiller(torch.nn.Module):
    """What mmrazor's ConfigurableDistiller does: losses by name, their arguments recorded and mapped by name."""

    def __init__(self, distill_losses, loss_forward_mappings):
        super().__init__()
        self.losses = torch.nn.ModuleDict({name: MODELS.build(loss) for name, loss in distill_losses.items()})
        self.mappings = loss_forward_mappings
        for name, loss in self.losses.items():
            parameters = inspect.signature(loss.forward).parameters
            needed = {key for key, p in parameters.items() if p.default is inspect.Parameter.empty}
            assert needed <= set(self.mappings[name]) <= set(parameters)

    def compute(self, records):
        return {name: loss(**{key: records[record] for key, record in self.mappings[name].items()})
                for name, loss in self.losses.items()}


@each_loss
def test_in_the_order_of_mmrazor(case):
    """(preds_S, preds_T, labels) by position, and by name through a mapping."""
    preds_s, preds_t, labels = maps(case)
    preds_s.requires_grad_()
    expected = case.call(preds_s, preds_t, labels)
    torch.manual_seed(0)
    assert case.build()(preds_s, preds_t, labels) == expected
    mapping = dict(student='logits', teacher='teacher_logits')
    if case.needs_target:
        mapping['target'] = 'labels'
    distiller = _Distiller(
        dict(loss_kd=dict(type=f'mmseg_kd.{case.module.__name__}', **case.settings)), dict(loss_kd=mapping))
    torch.manual_seed(0)
    value = distiller.compute(dict(logits=preds_s, teacher_logits=preds_t, labels=labels))['loss_kd']
    assert value == expected
    value.backward()
    assert preds_s.grad.isfinite().all()


def test_in_plain_pytorch_by_hand():
    student, teacher, target = maps(None)
    loss = torch.nn.ModuleList([losses.KDLoss(), losses.DKDLoss(beta=2.)])
    total = sum(term(student, teacher, target) for term in loss)
    assert_close(total, FAMILY[0].call(student, teacher) + FAMILY[1].call(student, teacher, target, beta=2.))


def test_in_mmseg_as_the_loss_of_a_decode_head():
    """Two (N, C, H, W) logits, (N, H, W) labels with 255; one frozen teacher, autocast on."""
    torch.manual_seed(0)
    head, teacher_head = (torch.nn.Conv2d(4, NUM_CLASSES, 1) for _ in range(2))
    features, target = torch.randn(2, 4, 8, 8), torch.randint(NUM_CLASSES, (2, 8, 8))
    target[:, :2] = 255
    with torch.autocast('cpu', dtype=torch.bfloat16):
        student = head(features)
        with torch.no_grad():
            teacher = teacher_head(features)
        assert student.dtype == torch.bfloat16
        value = losses.DKDLoss()(student, teacher, target)
    assert value.dtype == torch.float32
    value.backward()
    assert head.weight.grad.isfinite().all() and head.weight.grad.abs().max() > 0


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')


@needs_cuda
@each_loss
def test_on_a_cuda_device_as_on_the_cpu_and_without_waiting(case):
    if case.name == 'stochastic_gdkd':
        case = case._replace(settings=dict(keep=1.))
    student, teacher, target = maps(case, ignored=[1], dtype=torch.float32)
    expected, expected_gradient = value_and_gradient(case, student, teacher, target)
    on_device = [x.cuda() for x in (student, teacher, target)]
    value_and_gradient(case, *on_device)  # warm up
    torch.cuda.set_sync_debug_mode('error')
    try:
        value, gradient = value_and_gradient(case, *on_device)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert_close(value.cpu(), expected)
    assert_close(gradient.cpu(), expected_gradient)
