"""Whatever the shapes, types, labels and settings: a finite value with a finite gradient, or a clear ValueError.

The number of cases per test comes from the environment: MMSEG_KD_FUZZ=2000 tries that many, at random; without it a
few, always the same.
"""
import os
import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmseg_kd import losses
from mmseg_kd.distillers.dual_head import auxiliary_classifier
from mmseg_kd.functional.checks import settings_of

CASES = int(os.environ.get('MMSEG_KD_FUZZ', 60))
fuzz = settings(max_examples=CASES, derandomize='MMSEG_KD_FUZZ' not in os.environ, deadline=None, database=None,
                suppress_health_check=list(HealthCheck))

NAMES = sorted(name for name in losses.__all__ if name.endswith('Loss') and name != 'DistillationLoss')
POSITIVE = st.floats(0.05, 50.)
WEIGHT = st.floats(-10., 10.)
#: What a setting may be, good or bad.
DOMAINS = dict(
    temperature=st.one_of(POSITIVE, st.sampled_from([0, -1., float('nan'), float('inf'), 'hot', None, True])),
    ignore_index=st.sampled_from([255, 255, 255, None, 0, -1, 1.5]),
    reduction=st.sampled_from(['mean', 'mean', 'sum', 'none', 'median', None]),
    k=st.sampled_from([1, 2, 3, 1, 2, 3, 1, 2, 3, 5, 9, 0, -1, 'table', [2, 3], []]),
    k_max=st.sampled_from([2, 3, None, 0, 9]), ratio=st.sampled_from([1.5, 3., None, 0., -1.]),
    keep=st.floats(-0.1, 1.1), one_out=st.booleans(),
    by_mass=st.sampled_from([None, 'top', 'rest', 'both', 'all']), cap=st.one_of(st.none(), POSITIVE),
    coupling=st.sampled_from(['relative', 'absolute', 'squared']), softening=st.floats(-1e-3, 1e-2),
    strategy=st.sampled_from(['best', 'worst', 'any']),
    divergence=st.sampled_from(['forward', 'reverse', 'both', 'no']),
    standardize=st.sampled_from([None, 'whole', 'group', 'rest', 'all']))


@st.composite
def cases(draw, name):
    """Settings of a loss, and tensors."""
    chosen = {}
    for key in settings_of(getattr(losses, name).function):
        # The default k, 5, is too many for most of these shapes.
        if key == 'k' or draw(st.integers(0, 3)) == 3:
            chosen[key] = draw(DOMAINS.get(key, WEIGHT))
    if 'ratio' in chosen and draw(st.integers(0, 9)) < 9:
        # Together they give k; one alone, or k beside them, is refused.
        del chosen['k']
        chosen.setdefault('k_max', 3)
    elif draw(st.integers(0, 9)) < 9:
        chosen.pop('k_max', None)
    classes = draw(st.sampled_from([1, 2, 3, 4, 4, 5, 6, 6, 7, 8, 8]))
    if chosen.get('k') == 'table':
        chosen['k'] = draw(st.lists(st.integers(1, max(classes - 1, 1)), min_size=classes, max_size=classes))
    shape = (draw(st.integers(0, 3)), classes, *draw(st.lists(st.integers(0, 4), max_size=3)))
    dtypes = [torch.float32, torch.float32, torch.float64, torch.bfloat16]
    # Gradients that grow as the spread of the logits, or the distance to the teacher, vanishes: float16 ends at 65504.
    if name not in ('DGKDLoss', 'DISTLoss') and chosen.get('standardize') is None:
        dtypes.append(torch.float16)
    dtype, other = draw(st.sampled_from(dtypes)), draw(st.sampled_from(dtypes))
    largest = 100. if torch.float16 in (dtype, other) else 1e4
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def logits(kind):
        scale = min(10.**draw(st.integers(-6, 4)), largest)
        rows = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
        if draw(st.booleans()):
            rows[:, draw(st.integers(0, shape[1] - 1))] += largest
        return rows.to(kind)

    student = logits(dtype)
    teacher = student.to(other) if draw(st.integers(0, 4)) == 0 else logits(other)
    positions = (shape[0], *shape[2:])
    target = draw(st.sampled_from(['labels'] * 4 + ['some ignored'] * 4 + [
        'all ignored', 'outside', 'none', 'float', 'shape']))
    labels = torch.randint(shape[1], positions, generator=generator)
    if target == 'some ignored':
        labels[torch.rand(positions, generator=generator) < 0.5] = 255
    labels = dict({'all ignored': torch.full(positions, 255), 'outside': labels + draw(st.sampled_from([-9, 99])),
                   'none': None, 'float': labels.float(), 'shape': labels[None]}).get(target, labels)
    weight = draw(st.sampled_from([None, None, torch.rand(positions, generator=generator), torch.zeros(positions)]))
    return chosen, student, teacher, labels, weight


SEEN = dict(finite=0, refused=0)


@pytest.mark.parametrize('name', NAMES)
def test_losses(name):
    before = dict(SEEN)

    @fuzz
    @given(case=cases(name))
    def check(case):
        chosen, student, teacher, labels, weight = case
        student.requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                loss = getattr(losses, name)(**chosen)(student, teacher, labels, weight)
            except ValueError as error:
                assert '`' in str(error) or 'needs' in str(error), error
                SEEN['refused'] += 1
                return
        assert loss.isfinite().all(), loss
        loss.sum().backward()
        assert student.grad.isfinite().all(), student.grad
        SEEN['finite'] += 1

    check()
    # Both happen, and often: a test in which all is refused would show nothing.
    finite, refused = (SEEN[kind] - before[kind] for kind in SEEN)
    print(f'{name}: {finite} finite, {refused} refused')
    assert finite > CASES / 20 and refused, (finite, refused)


@fuzz
@given(kind=st.sampled_from(['linear', 'nonlinear', 'nonlinear', 'round', None]), dense=st.booleans(),
       features=st.integers(1, 12), classes=st.integers(1, 8), size=st.integers(1, 5), batch=st.integers(0, 4),
       kernel=st.integers(1, 3), scale=st.sampled_from([0., 1e-6, 1., 1e4]), training=st.booleans())
def test_dual_head(kind, dense, features, classes, size, batch, kernel, scale, training):
    main = torch.nn.Conv2d(features, classes, kernel, padding=1) if dense else torch.nn.Linear(features, classes)
    state = torch.get_rng_state()
    try:
        head = auxiliary_classifier(dict(kind=kind), main).train(training)
    except ValueError as error:
        assert kind in ('round', None) and '`dual_head`: expected' in str(error)
        return
    assert kind in ('linear', 'nonlinear') and torch.equal(torch.get_rng_state(), state)
    x = scale * torch.randn(batch, features, *(size, size) if dense else ())
    x.requires_grad_()
    try:
        logits = head(x)
    except ValueError as error:
        # Batch statistics of one value; torch says so.
        assert 'more than 1 value per channel' in str(error) and kind == 'nonlinear' and training
        return
    assert logits.shape == main(x).shape and logits.isfinite().all()
    losses.BinaryKLNormLoss()(logits, torch.zeros_like(logits)).backward()
    assert x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters() if parameter.grad is not None)
