"""Teachers of other classes: sums of several, what they cannot say, and the map that is ready to paste."""
import copy
import re

import numpy as np
import pytest
import torch
from mmengine.config import Config
from scipy.special import log_softmax, logsumexp
from tiny import batch, build, command, distilled, run_config, segmentor
from torch import nn

from mmseg_kd.teachers.class_map import ClassMap
from mmseg_kd.teachers.class_names import check_config

STUDENT, TEACHER = ('road', 'car', 'rider', 'sky'), ('sky', 'van', 'road', 'car', 'truck', 'sea')
MAP = {'car': ['car', 'van', 'truck'], 'rider': []}
SEA = 1.8
GROUPS = [[2], [3, 1, 4], [], [0]]
TERMS = dict(
    kd=dict(loss=dict(type='mmseg_kd.KDLoss', temperature=1.)),
    dkd=dict(loss=dict(type='mmseg_kd.DKDLoss', temperature=1., alpha=1., beta=2.)),
    counted=dict(loss=dict(type='mmseg_kd.KDLoss', temperature=1., ignore_index=None)))


def with_map(class_map, terms=None, **teacher):
    terms = copy.deepcopy(terms or dict(kd=TERMS['kd']))
    config = distilled(segmentor(dropout_ratio=0., num_classes=4), segmentor(16, num_classes=6), distill=terms)
    config['teacher'] |= dict(class_map=class_map, **teacher)
    config['teacher']['config']['train_dataloader'] = dict(dataset=dict(
        type='BaseSegDataset', metainfo=dict(classes=TEACHER)))
    return config


def spread(model):
    """A teacher with an opinion, which often sees the sea."""
    torch.manual_seed(5)
    classifier = model.teacher.model.decode_head.conv_seg
    nn.init.normal_(classifier.weight, std=3.)
    classifier.bias.data[5] = SEA
    return model


def test_losses_are_those_of_the_sums():
    """KD, DKD and KD without an ignored label, by their formulas in float64."""
    model = spread(build(with_map(MAP, TERMS))).train()
    model.check_class_names(STUDENT)
    data = model.data_preprocessor(batch(num_classes=4), True)
    losses = model.loss(data['inputs'], data['data_samples'])
    labels = np.stack([sample.gt_sem_seg.data[0].numpy() for sample in data['data_samples']])
    with torch.no_grad():
        v = model.teacher(data['inputs'], data['data_samples'], {'logits'})['logits']
        z = model(data['inputs'], mode='tensor')
    # The rule holds on the teacher's own map.
    small = v.logits.double()
    merged = torch.stack([small[:, group].logsumexp(1) for group in GROUPS if group], 1)
    lead = small[:, :5].logsumexp(1) - small[:, 5]
    full = nn.functional.interpolate(merged, (32, 64), mode='bilinear').numpy()
    counts = nn.functional.interpolate(lead[:, None], (32, 64), mode='bilinear')[:, 0].numpy() >= 0
    z = nn.functional.interpolate(z.double(), (32, 64), mode='bilinear').numpy()[:, [0, 1, 3]]
    everywhere = counts & (labels != 2)  # without an ignored label the void counts as well
    counts = everywhere & (labels != 255)
    assert 0.05 < counts.mean() < 0.65  # the rule leaves out some and leaves some
    p, q = log_softmax(full, axis=1), log_softmax(z, axis=1)
    kd = (np.exp(p) * (p - q)).sum(1)
    assert losses['distill.loss_kd'].item() == pytest.approx(kd[counts].mean(), rel=1e-4)
    target = np.array([0, 1, 0, 2])[np.where(labels == 255, 0, labels)]
    pt, qt = (np.take_along_axis(np.exp(each), target[:, None], 1)[:, 0] for each in (p, q))
    tckd = pt * np.log(pt / qt) + (1 - pt) * np.log((1 - pt) / (1 - qt))
    rest = np.arange(3)[None, :, None, None] != target[:, None]
    p_rest, q_rest = (np.where(rest, each, -np.inf) for each in (p, q))
    p_rest, q_rest = (each - logsumexp(each, axis=1, keepdims=True) for each in (p_rest, q_rest))
    nckd = np.where(rest, np.exp(p_rest) * (np.where(rest, p_rest, 0) - np.where(rest, q_rest, 0)), 0).sum(1)
    assert losses['distill.loss_dkd'].item() == pytest.approx((tckd + 2 * nckd)[counts].mean(), rel=1e-3)
    assert losses['distill.loss_counted'].item() == pytest.approx(kd[everywhere].mean(), rel=1e-4)


def test_a_class_that_the_teacher_lacks_is_not_moved():
    model = spread(build(with_map(MAP))).train()
    model.check_class_names(STUDENT)
    data = model.data_preprocessor(batch(num_classes=4), True)
    model.loss(data['inputs'], data['data_samples'])['distill.loss_kd'].backward()
    moved = model.decode_head.conv_seg.weight.grad.flatten(1).abs().sum(1) > 0
    assert moved.tolist() == [True, True, False, True]


@pytest.mark.parametrize('class_map', [{0: 3, 1: [2], 2: 1, 3: [0]}, None], ids=['indices', 'equal names'])
def test_a_permutation_is_undone(class_map):
    """The student as its own teacher with its classes turned round: nothing is left to learn."""
    config = with_map(class_map)
    config['teacher']['config'] = dict(model=segmentor(num_classes=4))
    if class_map is None:
        del config['teacher']['class_map']
    model = build(config)
    if class_map is None:
        model.teachers[0].classes = tuple(reversed(STUDENT))
        model.check_class_names(STUDENT)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for name in ('weight', 'bias'):
        state[f'decode_head.conv_seg.{name}'] = state[f'decode_head.conv_seg.{name}'].flip(0)
    model.teacher.model.load_state_dict(state)
    data = model.data_preprocessor(batch(num_classes=4), True)
    losses = model.eval().loss(data['inputs'], data['data_samples'])
    assert losses['distill.loss_kd'].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize('positions, target', [('labelled', 'label'), ('all', 'label'), ('all', 'teacher')])
def test_positions_are_chosen_among_those_that_the_teacher_knows(positions, target):
    """DKD at every pixel or only where a label is; a rider's label leaves a position out of all of them."""
    terms = dict(x=TERMS['dkd'] | dict(positions=positions, target=target))
    model = spread(build(with_map(MAP, terms))).train()
    model.check_class_names(STUDENT)
    data = model.data_preprocessor(batch(num_classes=4), True)
    got = model.loss(data['inputs'], data['data_samples'])['distill.loss_x'].item()
    with torch.no_grad():
        small = model.teacher(data['inputs'], data['data_samples'], {'logits'})['logits'].logits
        z = model(data['inputs'], mode='tensor')[:, [0, 1, 3]]
        merged = torch.stack([small[:, group].logsumexp(1) for group in GROUPS if group], 1)
        lead = small[:, :5].logsumexp(1) - small[:, 5]
        v, z, lead = (nn.functional.interpolate(each, (32, 64), mode='bilinear').double()
                      for each in (merged, z, lead[:, None]))
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in data['data_samples']])
    known = torch.tensor([0, 1, -1, 2])[labels.where(labels != 255, 2)]
    counts = (lead[:, 0] >= 0) & (labels != 2) & ((labels != 255) | (positions == 'all'))
    classes = v.argmax(1) if target == 'teacher' else known.where(known >= 0, v.argmax(1))
    from mmseg_kd.functional import dkd_loss
    wanted = dkd_loss(z.movedim(1, -1)[counts], v.movedim(1, -1)[counts], classes[counts], temperature=1., alpha=1.,
                      beta=2.)
    assert got == pytest.approx(wanted.item(), rel=1e-4)


def test_a_loop_of_ones_own():
    """Vectors and plain modules, classes by index; images of the class that the teacher lacks do not count."""
    from mmseg_kd.distillers.distiller import Distiller
    torch.manual_seed(0)
    student, teacher, images = nn.Linear(8, 3), nn.Linear(8, 4), torch.randn(6, 8)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    distiller = Distiller(student, dict(network=teacher, class_map={0: [3], 2: [1, 2]}), dict(
        kd=dict(loss=dict(type='mmseg_kd.KDLoss', temperature=1.))))
    got = distiller(images, labels)[1]['distill.loss_kd'].item()
    v, z = (each(images).detach().double().numpy() for each in (teacher, student))
    merged = np.stack([v[:, 3], logsumexp(v[:, 1:3], axis=1)], 1)
    p, q = log_softmax(merged, axis=1), log_softmax(z[:, [0, 2]], axis=1)
    counts = (logsumexp(merged, axis=1) >= v[:, 0]) & (labels.numpy() != 1)
    assert 0 < counts.sum() < 6
    assert got == pytest.approx((np.exp(p) * (p - q)).sum(1)[counts].mean(), rel=1e-5)


def test_names_that_nobody_told():
    model = build(with_map(MAP))
    data = model.data_preprocessor(batch(num_classes=4), True)
    with pytest.raises(ValueError, match='`teacher.class_map`: .* nothing has told their names. Train with our tools'):
        model.loss(data['inputs'], data['data_samples'])


@pytest.mark.parametrize('class_map, message', [
    (['car'], r"expected \{'student class'"), ({}, r"expected \{'student class'"), ({'car': 1.5}, 'expected a list'),
    ({'car': ['cart']}, r"the teacher has no class 'cart'. Did you mean 'car'\?"),
    ({'bike': ['car']}, r"the student has no class 'bike'"), ({'car': [6]}, r'a class of the teacher, 0 .. 5, got 6'),
    ({4: ['car']}, r'a class of the student, 0 .. 3, got 4'), ({'car': [None]}, 'names or indices'),
    ({'car': ['van'], 'rider': ['van']}, r"'van' is given to 'car' and to 'rider', between which"),
    ({'car': ['van'], 1: ['truck']}, 'is named twice'),
    ({'road': [], 'car': [], 'sky': [], 'rider': []}, 'nothing to compare')], ids=str)
def test_refused(class_map, message):
    with pytest.raises(ValueError, match='`teacher.class_map`: .*' + message):
        ClassMap(class_map, TEACHER, 6, 4).tell_names(STUDENT)


def test_names_of_the_teacher_must_be_known():
    with pytest.raises(ValueError, match=r"names of the teacher's classes are not known; say them by teacher.classes"):
        ClassMap({'car': ['van']}, None, 6)
    with pytest.raises(ValueError, match='and the names .* give indices|does not. Name them'):
        ClassMap({'car': ['van']}, TEACHER, 6, 4).tell_names(None)


def test_what_the_map_does_not_name_has_its_equal():
    class_map = ClassMap(MAP, TEACHER, 6, 4)
    class_map.tell_names(STUDENT)
    assert class_map.groups == ((2, ), (3, 1, 4), (), (0, ))
    taken = ClassMap({'road': ['road', 'sky']}, TEACHER, 6, 4)
    taken.tell_names(STUDENT)
    assert taken.groups == ((2, 0), (3, ), (), ())


def config_of(names, class_map=None, student=STUDENT, **settings):
    model = with_map(class_map)
    model['teacher']['config']['train_dataloader']['dataset']['metainfo']['classes'] = names
    if class_map is None:
        del model['teacher']['class_map']
    data = dict(dataset=dict(type='BaseSegDataset', metainfo=dict(classes=student)))
    return Config(dict(model=model, train_dataloader=data, **settings))


def test_before_anything_is_built():
    """Equal names are matched; the rest is refused with the map that was found, which can be pasted."""
    wider = config_of([*TEACHER, 'rider'])
    check_config(wider)
    assert wider.model.teacher.class_map == {name: [name] for name in STUDENT}
    with pytest.raises(ValueError) as raised:
        check_config(config_of(TEACHER))
    found = re.search(r'class_map=(\{.*?\})\)', str(raised.value))[1]
    assert eval(found) == dict(road=['road'], car=['car'], rider=[], sky=['sky'])
    check_config(config_of(TEACHER, eval(found)))
    with pytest.raises(ValueError, match="no class 'cart'"):
        check_config(config_of(TEACHER, {'car': ['cart']}))
    with pytest.raises(ValueError, match="no class 'bike'"):
        check_config(config_of(TEACHER, {'bike': ['car']}))


def test_through_the_command_line(mini_cityscapes, tmp_path):
    """A module of other classes teaches by a map of names, from a cache of its answers; the log says the map."""
    (tmp_path / 'net.py').write_text('from torch import nn\ndef make():\n    return nn.Conv2d(3, 4, 3, 2, 1)\n')
    config = distilled(segmentor(), segmentor(16)) | dict(teacher=dict(
        type='module', build=f'{tmp_path}/net.py:make', mean=[0.5] * 3, std=[0.25] * 3,
        classes=['street', 'vehicle', 'sky', 'lake'], class_map={'road': 'street', 'car': ['vehicle']}))
    run_config(config, mini_cityscapes, max_iters=2, teacher_check={}).dump(tmp_path / 'config.py')
    command('tools/cache_teacher.py', tmp_path / 'config.py', '--out', tmp_path / 'cache')
    printed = command('tools/train.py', tmp_path / 'config.py', '--work-dir', tmp_path, '--cfg-options',
                      f'model.teacher.cache={tmp_path / "cache"}').stdout
    assert "`teacher.class_map`: {'road': ['street'], 'sidewalk': [], " in printed and "'sky': ['sky']" in printed
    assert 'distill.loss_dkd' in printed and (tmp_path / 'iter_2.pth').is_file()
    other = dict(config['teacher'], mean=[0.4] * 3, cache=str(tmp_path / 'cache'))
    with pytest.raises(ValueError, match='`teacher.cache`: .* holds the logits of another network'):
        build(config | dict(teacher=other))
