"""The registered shells: built from configs, equal to their functions, without state."""
import copy
import inspect
import json
import pickle

import pytest
import torch
from loss_cases import FAMILY, NUM_CLASSES, VARIANTS, each_loss, each_variant, maps
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_kd import functional, losses
from mmseg_kd.functional.checks import settings_of
from mmseg_kd.registry import MODELS

pytestmark = pytest.mark.filterwarnings('ignore:.*by construction:UserWarning')


@each_variant
def test_module_is_function(case):
    student, teacher, target = maps(case, ignored=[3])
    weight = torch.linspace(0, 2, 12).view(2, 2, 3)
    for reduction in ('mean', 'sum', 'none'):
        expected = case.call(student, teacher, target, weight, reduction=reduction)
        torch.manual_seed(0)
        assert (case.build(reduction=reduction)(student, teacher, target, weight) == expected).all()
        torch.manual_seed(0)
        doubled = case.build(reduction=reduction, loss_weight=2.)(student, teacher, target=target, weight=weight)
        assert_close(doubled, 2 * expected)


@each_loss
def test_defaults_are_those_of_the_function(case):
    loss = case.module()
    defaults = settings_of(case.function)
    assert loss.settings == defaults
    assert {name: p.default for name, p in inspect.signature(case.module).parameters.items()} == dict(
        defaults, loss_weight=1.)


@pytest.mark.parametrize('scope', ['mmengine', 'mmseg', 'mmseg_kd'])
@each_loss
def test_builds_from_a_config_in_any_scope(case, scope):
    import mmseg.registry
    config = Config(dict(loss=dict(type=f'mmseg_kd.{case.module.__name__}', loss_weight=0.5, **case.settings)))
    registry = dict(mmseg=mmseg.registry.MODELS, mmseg_kd=MODELS)
    with DefaultScope.overwrite_default_scope(scope):
        loss = registry.get(scope, MODELS.parent).build(config.loss)
    assert type(loss) is case.module
    assert loss.loss_weight == 0.5


def test_builds_from_a_bare_mmseg_process():
    """Nothing but `import mmseg_kd` is needed for the names to be found."""
    import subprocess
    import sys
    code = ("import mmseg_kd; from mmseg.registry import MODELS; print(MODELS.build(dict(type='mmseg_kd.DKDLoss', "
            "alpha=1., beta=8., temperature=4.)).beta)")
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.split()[-1:] == ['8.0'], done.stderr


@each_variant
def test_copies_and_pickles(case):
    student, teacher, target = maps(case)
    loss = case.build(loss_weight=0.5)

    def value(module):
        torch.manual_seed(0)
        return module(student, teacher, target)

    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert value(other) == value(loss)
        assert other.settings == loss.settings


@each_loss
def test_has_no_state_and_no_parameters(case):
    loss = case.build()
    assert not loss.state_dict() and not list(loss.parameters()) and not list(loss.buffers())


@pytest.mark.parametrize('case', VARIANTS, ids=lambda case: case.name)
def test_repr_shows_the_settings(case):
    shown = repr(case.build(loss_weight=0.25))
    assert shown.startswith(f'{case.module.__name__}(')
    for name, value in dict(case.settings, loss_weight=0.25, ignore_index=255).items():
        assert f'{name}={value!r}' in shown


def test_says_whether_it_needs_a_target():
    needing = {case.module.__name__ for case in FAMILY if case.build().needs_target}
    assert needing == {'DKDLoss', 'DGKDLoss', 'StochasticGDKDLoss'}
    assert all(type(case.build().needs_target) is bool for case in FAMILY)


def test_settings_are_attributes_that_may_change():
    student, teacher, target = maps(None)
    loss = losses.DKDLoss(beta=8.)
    loss.beta = 2.
    assert loss(student, teacher, target) == losses.DKDLoss(beta=2.)(student, teacher, target)
    loss.temperature = 0.
    with pytest.raises(ValueError, match='`temperature`'):
        loss(student, teacher, target)


@pytest.mark.parametrize('content', [[1, 2, 3, 4, 5, 6, 1], dict(k=[1, 2, 3, 4, 5, 6, 1], temperature=4.)])
def test_table_of_k_from_a_file(tmp_path, content):
    path = tmp_path / 'table.json'
    path.write_text(json.dumps(content))
    student, teacher, target = maps(None)
    expected = losses.GDKDLoss(k=[1, 2, 3, 4, 5, 6, 1])(student, teacher, target)
    for given in (str(path), path):
        loss = losses.GDKDLoss(k=given)
        assert loss.needs_target
        assert loss(student, teacher, target) == expected
    path.unlink()  # read once
    assert pickle.loads(pickle.dumps(loss))(student, teacher, target) == expected
    with pytest.raises(ValueError, match='`k` must be an integer, a table or a JSON file with a table, got .*json'):
        losses.GDKDLoss(k=str(path))
    path.write_text(json.dumps(dict(classes=3)))
    with pytest.raises(ValueError, match='`k` must name a JSON file with a list or with an object whose "k" is one'):
        losses.GDKDLoss(k=str(path))
    path.write_text(json.dumps([1, 0]))
    with pytest.raises(ValueError, match=r'`k\[1\]` must be an integer of at least 1, got 0'):
        losses.GDKDLoss(k=str(path))


def test_dgkd_shows_its_diagnostics_under_its_own_settings():
    from mmseg_kd.functional import dgkd_diagnostics
    student, teacher, target = maps(None)
    loss = losses.DGKDLoss(alpha=0.5, beta=8., epsilon=3., temperature=2.)
    expected = dgkd_diagnostics(student, teacher, target, alpha=0.5, beta=8., epsilon=3., temperature=2.)
    assert loss.diagnostics(student, teacher, target) == expected


def test_a_small_classifier_learns_from_its_teacher():
    """Every loss moves a student to where the teacher's decisions are."""
    torch.manual_seed(0)
    images, teacher = torch.randn(64, 5, 1), torch.nn.Conv1d(5, NUM_CLASSES, 1)
    with torch.no_grad():
        wanted = 4 * teacher(images)
    target = wanted.argmax(1)
    for case in FAMILY:
        if case.name == 'cwd':
            continue  # one position per image
        torch.manual_seed(1)
        # Without a bound and without a supervised loss, the coupling term of DGKD keeps the student off the teacher.
        settings = dict(cap=0.5) if case.name == 'dgkd' else {}
        student, loss = torch.nn.Conv1d(5, NUM_CLASSES, 1), case.build(**settings)
        optimizer = torch.optim.Adam(student.parameters(), lr=0.1)
        for _ in range(40):
            optimizer.zero_grad()
            loss(student(images), wanted, target).backward()
            optimizer.step()
        agreement = (student(images).argmax(1) == target).double().mean()
        assert agreement > 0.9, case.name


def test_a_weight_of_1_is_no_operation():
    """Counted forward and backward; another weight is one operation each way."""
    class Counted(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            counted.append(function)
            return function(*args, **(kwargs or {}))

    student, teacher = torch.randn(1, 3, 4, 5, requires_grad=True), torch.randn(1, 3, 4, 5)
    numbers = []
    for call in (functional.kd_loss, losses.KDLoss(), losses.KDLoss(loss_weight=2.)):
        counted = []
        with Counted():
            torch.autograd.grad(call(student, teacher), student, torch.ones(()))
        numbers.append(len(counted))
    assert numbers[0] == numbers[1] > 0
    assert numbers[2] >= numbers[1] + 2
