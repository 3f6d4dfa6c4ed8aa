"""What the family refuses, and in which words: from the function and from the module alike."""
import re
import warnings

import pytest
import torch
from loss_cases import FAMILY, NUM_CLASSES, each_loss, labels, logits, maps

from mmseg_kd import functional, losses
from mmseg_kd.functional import checks, dgkd_diagnostics

pytestmark = pytest.mark.filterwarnings('ignore:.*by construction:UserWarning')

TARGETED = [case for case in FAMILY if case.needs_target]


def _calls(case):
    """The function and the module, both as loss(student, teacher, target, weight)."""
    yield case.call
    yield case.build()


def _refused(case, message, *inputs):
    for call in _calls(case):
        with pytest.raises(ValueError, match=re.escape(message)):
            call(*inputs)


@each_loss
def test_a_teacher_that_would_learn(case):
    student, teacher, target = maps(case)
    _refused(case, '`teacher` must not require grad: a loss of this family teaches only the student. Run the teacher '
             'under torch.no_grad() or pass teacher.detach()', student, teacher.requires_grad_(), target)


@each_loss
def test_logits_that_do_not_fit(case):
    student, teacher, target = maps(case)
    _refused(case, '`teacher` must have the shape of `student`, (2, 7, 2, 3), got (2, 7, 2, 2); resize one',
             student, teacher[..., :2], target)
    _refused(case, '`student` and `teacher` must have the same classes in dimension 1, got 7 and 6',
             student, teacher[:, :6], target)
    _refused(case, '`teacher` must hold floating-point logits, got torch.int64', student, teacher.long(), target)
    _refused(case, '`student` must hold floating-point logits, got torch.int64', student.long(), teacher, target)
    _refused(case, '`teacher` must be a tensor of logits, got list', student, teacher.tolist(), target)
    _refused(case, '`student` must be a tensor of logits, got NoneType', None, teacher, target)
    _refused(case, '`student` must be (N, C) or (N, C, *), got shape (7,)', student[0, :, 0, 0],
             teacher[0, :, 0, 0], None)


@each_loss
def test_another_device(case):
    student, teacher, target = maps(case)
    _refused(case, '`teacher` must be on the device of `student`, cpu, got meta; move it there',
             student, teacher.to('meta'), target)
    _refused(case, '`target` must be on the device of `student`, cpu, got meta', student, teacher, target.to('meta'))
    _refused(case, '`weight` must be on the device of `student`, cpu, got meta', student, teacher, target,
             torch.ones(2, 2, 3, device='meta'))


@each_loss
def test_one_class(case):
    student = torch.zeros(2, 1, 3)
    target = torch.zeros(2, 3, dtype=torch.int64)
    if case.name in ('binary_kl', 'binary_kl_norm', 'cwd', 'logit_mse'):
        assert all(call(student, student, target) == 0 for call in _calls(case))
    else:
        _refused(case, '`student` must have at least 2 classes in dimension 1, got 1; for one sigmoid output use '
                 'BinaryKLLoss', student, student, target)


@each_loss
def test_labels_that_are_no_classes(case):
    student, teacher, target = maps(case)
    target[0, 0, 0], target[1, 1, 1] = 7, -3
    _refused(case, '`target` must hold classes 0 .. 6 or ignore_index = 255, got [-3, 7]; map other labels to '
             'ignore_index', student, teacher, target)
    for wrong, message in (
        (labels(2, 2, 3).float(), 'soft labels (of mixup, cutmix or label smoothing) have no target class, use a loss '
         'that needs none (KDLoss, GDKDLoss, BinaryKLLoss)'),
        (labels(2, 2, 3).int(), '`target` must hold int64 class indices, got torch.int32 of shape (2, 2, 3); convert'),
        (labels(2, 1, 2, 3), '`target` must have one entry per position, shape (2, 2, 3), got (2, 1, 2, 3); squeeze'),
        (labels(2, 2, 2), '`target` must have one entry per position, shape (2, 2, 3), got (2, 2, 2)'),
        ([0, 1], '`target` must be a tensor of class indices, got list'),
    ):
        _refused(case, message, student, teacher, wrong)


@pytest.mark.parametrize('case', TARGETED, ids=lambda case: case.name)
def test_no_target(case):
    student, teacher, _ = maps(case)
    _refused(case, f'{case.function.__name__} needs `target`, (N, *) int64 class indices, got None; pass the labels or '
             'use a loss that needs none', student, teacher)


@each_loss
def test_weights_that_do_not_fit(case):
    student, teacher, target = maps(case)
    _refused(case, '`weight` must have one entry per position, shape (2, 2, 3), got (2,)', student, teacher, target,
             torch.ones(2))
    _refused(case, '`weight` must be a tensor, got float; for one factor of the whole loss use loss_weight',
             student, teacher, target, 2.)


def test_cwd_without_positions():
    student, teacher = logits(4, NUM_CLASSES), logits(4, NUM_CLASSES)
    for call in (functional.cwd_loss, losses.CWDLoss()):
        with pytest.raises(ValueError, match='must be .N, C, .. with positions for cwd_loss.*use KDLoss'):
            call(student, teacher)


BAD_SETTINGS = dict(
    temperature=[0, -1., float('nan'), float('inf'), '4', None, True, 1e20, 1001, 1e-4],
    reduction=['batchmean', None, 1],
    ignore_index=[2.5, 'none'],
    alpha=['1', None, float('nan')],
    beta=[float('inf')],
    gamma=[None],
    epsilon=['6'],
    cap=[0, -1.],
    coupling=['squared', None],
    softening=[-1e-8, float('inf'), None],
    w0=['x'],
    w1=[None],
    w2=[float('nan')],
    k=[0, -1, 2.5, True, (), (1, 0, 2), torch.ones(7), None],
    k_max=[0, 1.5],
    ratio=[0., 'high'],
    keep=[0., 1.5, None],
    one_out=[1, 'yes', None],
    by_mass=['all', 1],
    strategy=['top', None],
    divergence=['kl', None],
    standardize=['all', True],
)


@pytest.mark.parametrize('case, name', [
    pytest.param(case, name, id=f'{case.name}-{name}')
    for case in FAMILY for name in checks.settings_of(case.function)])
def test_settings_outside_their_domain(case, name):
    student, teacher, target = maps(case)
    for value in BAD_SETTINGS[name]:
        for build in (lambda value=value: case.call(student, teacher, target, **{name: value}),
                      lambda value=value: case.build(**{name: value})):
            with pytest.raises(ValueError, match=rf'^`{name}(\[1\])?` .*must .*, got '):
                build()


def test_every_setting_of_the_family_is_checked():
    """A new setting needs a check, and a bad value above."""
    known = set().union(*(checks.settings_of(case.function) for case in FAMILY))
    assert known == set(BAD_SETTINGS)
    assert known | {'loss_weight'} == set(checks._SETTINGS)


@each_loss
def test_a_setting_it_does_not_know(case):
    student, teacher, target = maps(case)
    with pytest.raises(ValueError, match=f'{case.function.__name__} does not know the setting `weigth`: it takes '):
        case.call(student, teacher, target, weigth=1)
    with pytest.raises(ValueError, match=f'{case.module.__name__} does not know the setting `tau`: it takes .*`loss_w'):
        case.build(tau=1)
    with pytest.raises(ValueError, match='`loss_weight` must be a finite number, got None'):
        case.build(loss_weight=None)


@pytest.mark.parametrize('name', ['gdkd', 'gdkd3'])
def test_k_beyond_the_classes(name):
    student, teacher, _ = maps(None)
    function, module = getattr(functional, f'{name}_loss'), dict(gdkd=losses.GDKDLoss, gdkd3=losses.GDKD3Loss)[name]
    for k in (7, 8):
        for call in (lambda k=k: function(student, teacher, k=k), lambda k=k: module(k=k)(student, teacher)):
            with pytest.raises(ValueError, match=f'`k` must be within 1 .. C - 1 = 6 for 7 classes, got {k}'):
                call()


def test_tables_of_k_that_do_not_fit():
    student, teacher, target = maps(None)
    for k, message in (([1, 2], '`k` as a table must hold one entry for each of 7 classes, got 2'),
                       ([7] * 7, '`k` must hold entries within 1 .. C - 1 = 6, got 7'),
                       (torch.full((7, ), 7), '`k` must hold entries within 1 .. C - 1 = 6, got 7'),
                       (torch.tensor([1, 2, 3, 0, 1, 1, 1]), r'`k\[3\]` must be an integer of at least 1, got 0')):
        for call in (lambda k=k: functional.gdkd_loss(student, teacher, target, k=k),
                     lambda k=k: losses.GDKDLoss(k=k)(student, teacher, target)):
            with pytest.raises(ValueError, match=message):
                call()
    for call in (lambda: functional.gdkd_loss(student, teacher, k=[1] * 7),
                 lambda: losses.GDKDLoss(k=[1] * 7)(student, teacher)):
        with pytest.raises(ValueError, match='gdkd_loss needs `target` where `k` is a table'):
            call()
    for call in (lambda: functional.gdkd3_loss(student, teacher, k=[1] * 7),
                 lambda: losses.GDKD3Loss(k=[1] * 7)(student, teacher)):
        with pytest.raises(ValueError, match='`k` must be one integer for gdkd3_loss'):
            call()


@pytest.mark.parametrize('settings, message', [
    (dict(ratio=2.), '`ratio` and `k_max` must be given together, got ratio=2.0 and k_max=None'),
    (dict(k_max=2), '`ratio` and `k_max` must be given together'),
    (dict(ratio=2., k_max=3, k=2), '`k` must be left out where `ratio` and `k_max` give it, got k=2'),
    (dict(ratio=2., k_max=3, strategy='worst'), "`strategy` must be 'best' where `ratio` gives k"),
])
def test_settings_of_k_that_contradict(settings, message):
    student, teacher, _ = maps(None)
    for call in (lambda: functional.gdkd_loss(student, teacher, **settings), lambda: losses.GDKDLoss(**settings)):
        with pytest.raises(ValueError, match=message):
            call()


def test_diagnostics_refuse_as_the_loss_does():
    student, teacher, target = maps(None)
    with pytest.raises(ValueError, match='dgkd_diagnostics needs `target`'):
        dgkd_diagnostics(student, teacher, None)
    with pytest.raises(ValueError, match='`temperature` must be a positive'):
        dgkd_diagnostics(student, teacher, target, temperature=0)


def test_a_reduction_that_avg_factor_contradicts():
    student, teacher, _ = maps(None)
    with pytest.raises(ValueError, match="`avg_factor` must be left out unless reduction is 'mean', got reduction '"):
        losses.KDLoss(reduction='sum')(student, teacher, avg_factor=4.)


@pytest.mark.parametrize('call, message', [
    (lambda x, t: functional.dkd_loss(x, x, t), 'dkd_loss: with C = 2 .*`beta` has no effect'),
    (lambda x, t: functional.dgkd_loss(x, x, t), 'dgkd_loss: with C = 2 .*`beta` has no effect'),
    (lambda x, t: functional.stochastic_gdkd_loss(x, x, t), 'stochastic_gdkd_loss: with C = 2 .*`w1` has no effect'),
    (lambda x, t: functional.gdkd_loss(x, x, k=1), 'gdkd_loss: with k = 1 .*`w1` has no effect'),
    (lambda x, t: functional.gdkd_loss(x, x, k=1), 'gdkd_loss: with k = C - 1 .*`w2` has no effect'),
    (lambda x, t: functional.gdkd3_loss(x, x, k=1), 'gdkd3_loss: with k = 1 .*`w1` has no effect'),
    (lambda x, t: functional.dkd_loss(x, x, t, ignore_index=1), 'ignore_index = 1 is also one of the 2 classes'),
])
def test_terms_that_vanish_are_warned_of_once(call, message):
    x, target = torch.zeros(3, 2), torch.tensor([0, 1, 0])
    checks._warn_once.cache_clear()
    with pytest.warns(UserWarning, match=message):
        call(x, target)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        call(x, target)
        checks._warn_once.cache_clear()
        functional.dkd_loss(torch.zeros(3, 3), torch.zeros(3, 3), target)  # nothing vanishes


def test_ignore_index_of_a_class_leaves_that_class_out():
    student, teacher, _ = maps(None)
    target = labels(2, 2, 3)
    checks._warn_once.cache_clear()
    with pytest.warns(UserWarning, match='Pass ignore_index=None'):
        some = functional.kd_loss(student, teacher, target, ignore_index=int(target[0, 0, 0]), reduction='none')
    assert (some[target == target[0, 0, 0]] == 0).all() and (some[target != target[0, 0, 0]] > 0).all()


def test_labels_are_checked_on_a_device_without_waiting_for_it(monkeypatch):
    """There the condition goes to torch._assert_async; here the branch is taken by a tensor that says it is on cuda."""
    seen = []
    monkeypatch.setattr(torch, '_assert_async', lambda condition, message: seen.append((bool(condition), message)))
    monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: True)
    checks.check_labels(torch.tensor([0, 7]), 7, 255)
    checks.check_labels(torch.tensor([0, 6, 255]), 7, 255)
    message = '`target` must hold classes 0 .. 6 or ignore_index = 255'
    assert seen == [(False, message), (True, message)]
