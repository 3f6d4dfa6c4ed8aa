"""torch.compile, torch.vmap and torch.func around every loss."""
import pytest
import torch
from loss_cases import FAMILY, NUM_CLASSES, VARIANTS, each_loss, labels, logits, maps, value_and_gradient
from torch.testing import assert_close

pytestmark = pytest.mark.filterwarnings('ignore:.*by construction:UserWarning')

TO_COMPILE = FAMILY + [case for case in VARIANTS if 'ratio' in case.name or '(' in case.name or 'rest' in case.name]


@pytest.mark.parametrize('case', TO_COMPILE, ids=lambda case: case.name)
def test_compiles_into_one_graph(case):
    if case.name == 'stochastic_gdkd':
        case = case._replace(settings=dict(keep=1.))
    student, teacher, target = maps(case, ignored=[1], dtype=torch.float32)
    expected, expected_gradient = value_and_gradient(case, student, teacher, target)
    torch._dynamo.reset()
    compiled = torch.compile(case.build(), fullgraph=True, backend='eager')
    student.requires_grad_()
    value = compiled(student, teacher, target)
    gradient, = torch.autograd.grad(value, student)
    assert_close(value, expected)
    assert_close(gradient, expected_gradient)


OTHERS = dict(
    kd=[dict(temperature=4.), dict(temperature=2.), dict(temperature=1., loss_weight=.5)],
    dkd=[dict(alpha=1., beta=8.), dict(alpha=.5, beta=2., temperature=1.), dict(alpha=2, beta=3)],
    gdkd=[dict(k=2), dict(k=3, w0=2.), dict(k=4, divergence='both'), dict(ratio=1.5, k_max=3),
          dict(ratio=2.5, k_max=4), dict(k=(1, 2, 3, 1, 2, 3, 1)), dict(k=(1, 2, 1, 1, 2, 3, 1))],
    gdkd3=[dict(k=3), dict(k=4, w1=1.), dict(k=5)],
    stochastic_gdkd=[dict(keep=1.), dict(keep=1., w0=3.)],
    dgkd=[dict(), dict(epsilon=2., cap=1.), dict(epsilon=3., cap=2., temperature=1.)],
    binary_kl=[dict(temperature=1.), dict(temperature=2.), dict(temperature=3.)],
    binary_kl_norm=[dict(temperature=1.), dict(temperature=2.), dict(temperature=3.)],
    cwd=[dict(temperature=1.), dict(temperature=2.), dict(temperature=3.)],
    dist=[dict(), dict(beta=2., gamma=3., temperature=4.), dict(beta=3.)],
    logit_mse=[dict(), dict(loss_weight=2.), dict(loss_weight=.5, ignore_index=None)])


@each_loss
def test_instances_with_other_settings_compile_in_one_process(case):
    """Dynamo makes symbols of numbers that differ between two of them."""
    student, teacher, target = maps(case, dtype=torch.float32)
    torch._dynamo.reset()
    for settings in OTHERS[case.name.partition('-')[0]]:
        module = case.module(**settings)
        leaf = student.clone().requires_grad_()
        value = torch.compile(module, fullgraph=True, backend='eager')(leaf, teacher, target)
        exact = module(student.double(), teacher.double(), target)
        assert_close(value.double(), exact, rtol=1e-5, atol=0)
        assert torch.autograd.grad(value, leaf)[0].isfinite().all()


def test_compiles_ahead_of_time_and_checks_labels_in_the_graph():
    case = next(case for case in FAMILY if case.name == 'dkd')
    student, teacher, target = maps(case, dtype=torch.float32)
    torch._dynamo.reset()
    compiled = torch.compile(case.build(), fullgraph=True, backend='aot_eager')
    student.requires_grad_()
    value = compiled(student, teacher, target)
    gradient, = torch.autograd.grad(value, student)
    expected, expected_gradient = value_and_gradient(case, student.detach(), teacher, target)
    assert_close(value, expected)
    assert_close(gradient, expected_gradient)
    target[0, 0, 0] = 99
    with pytest.raises(RuntimeError, match='`target` must hold classes 0 .. 6'):
        compiled(student, teacher, target)


@each_loss
def test_vmap_over_an_ensemble_of_teachers(case):
    if case.name == 'stochastic_gdkd':
        case = case._replace(settings=dict(keep=1.))
    student, _, target = maps(case, ignored=[4])
    teachers = logits(3, 2, NUM_CLASSES, 2, 3, seed=6)
    loss = case.build()
    values = torch.vmap(lambda teacher: loss(student, teacher, target), randomness='same')(teachers)
    assert_close(values, torch.stack([loss(student, teacher, target) for teacher in teachers]))


@each_loss
def test_vmap_and_grad_over_everything(case):
    """Per-sample gradients: student, teacher and target are all mapped, the student is differentiated."""
    if case.name == 'stochastic_gdkd':
        case = case._replace(settings=dict(keep=1.))
    students, teachers = (logits(3, 1, NUM_CLASSES, 2, 2, seed=seed) for seed in (0, 1))
    targets = labels(3, 1, 2, 2, ignored=[2])
    loss = case.build()
    gradients = torch.vmap(torch.func.grad(loss), randomness='same')(students, teachers, targets)
    expected = [value_and_gradient(case, s, v, t)[1] for s, v, t in zip(students, teachers, targets, strict=True)]
    assert_close(gradients, torch.stack(expected))


def test_labels_are_checked_inside_a_gradient_transform_too():
    case = next(case for case in FAMILY if case.name == 'dkd')
    student, teacher, target = maps(case)
    target[0, 0, 0] = 99
    with pytest.raises(ValueError, match='`target` must hold classes'):
        torch.func.grad(case.build())(student, teacher, target)
