"""Which pixels a term of a segmentor sees: against the formulas in float64 on pixels that are picked here."""
import copy

import pytest
import torch
from decode_heads import HEADS, student
from mmengine.structures import PixelData
from test_dual_head_of_every_decode_head import NEEDS_OPS
from tiny import batch, build, cascade, distilled, segmentor
from torch.nn import functional as F

CLASSES = 5
LOSSES = dict(kd=dict(type='mmseg_kd.KDLoss', temperature=2.), dkd=dict(type='mmseg_kd.DKDLoss', temperature=2.),
              table=dict(type='mmseg_kd.GDKDLoss', k=(1, 2, 3, 2, 1), temperature=2.))


def formula(loss, z, v, target):
    """KD, DKD (alpha 1, beta 8) or GDKD with a table of k (w0 1, w1 1, w2 2) of rows, by the papers; float64, T = 2."""
    q, p = (z / 2).softmax(1), (v / 2).softmax(1)

    def kl(a, b):
        return (a * (a / b).log()).sum(1)

    if loss == 'kd':
        return 4 * kl(p, q)
    if loss == 'dkd':
        group, weights = F.one_hot(target, CLASSES).bool(), (1., 0., 8.)
    else:
        number = torch.tensor(LOSSES['table']['k'])[target]
        group, weights = v.argsort(1, descending=True).argsort(1) < number[:, None], (1., *TABLE_WEIGHTS)
    total = torch.zeros(len(z), dtype=torch.float64)
    masses = []
    for members, weight in ((group, weights[1]), (~group, weights[2])):
        masses.append([(x * members).sum(1) for x in (p, q)])
        inside = [x.masked_fill(~members, 0.) / mass[:, None] for x, mass in zip((p, q), masses[-1], strict=True)]
        total += weight * (inside[0] * (inside[0] / inside[1]).masked_fill(~members, 1.).log()).sum(1)
    return 4 * (total + weights[0] * kl(*(torch.stack(each, 1) for each in zip(*masses, strict=True))))


TABLE_WEIGHTS = (1., 2.)
LOSSES['table'] |= dict(w0=1., w1=1., w2=2.)


def data_of(model, padded=False):
    """Four pictures, the second and the fourth without labels; some void pixels; two pictures smaller than the rest."""
    data = batch(4, num_classes=CLASSES)
    for row in (1, 3):
        data['data_samples'][row].set_metainfo(dict(unlabelled=True))
        data['data_samples'][row].gt_sem_seg.data[:] = 255
    if padded:
        for row in (2, 3):
            data['inputs'][row] = data['inputs'][row][:, :28, :50]
            sample = data['data_samples'][row]
            sample.gt_sem_seg = PixelData(data=sample.gt_sem_seg.data[:, :28, :50])
    return model.data_preprocessor(data, True)


def with_terms(**terms):
    """A distilled model in training whose batch statistics stand still."""
    config = distilled(segmentor(num_classes=CLASSES, dropout_ratio=0.), segmentor(16, 'PSPHead', CLASSES),
                       distill=terms)
    model = build(config).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    # Teachers of random weights are sure of nothing.
    model.teacher.model.decode_head.conv_seg.weight.data *= 60.
    return model


def logits_of(model, inputs, size):
    """Student's and teacher's logits at a size, in float64."""
    pair = [each.decode_head.forward(each.extract_feat(inputs)) for each in (model, model.teacher.model)]
    return [F.interpolate(each.detach(), size=size, mode='bilinear', align_corners=False).double() for each in pair]


def expected(model, data, loss, positions, target, size=(32, 64), weigh=lambda v: torch.ones(len(v))):
    z, v = logits_of(model, data['inputs'], size)
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in data['data_samples']])
    ys, xs = (torch.arange(side) * full // side for side, full in zip(size, (32, 64), strict=True))
    total = count = 0.
    for row, sample in enumerate(data['data_samples']):
        right, bottom = (sample.metainfo['padding_size'][side] for side in (1, 3))
        inside = (ys < 32 - bottom)[:, None] & (xs < 64 - right)
        label = labels[row][ys][:, xs]
        counts = {'labelled': inside & (label != 255), 'all': inside, 'unlabelled': inside & (row in (1, 3))}[positions]
        mine, theirs = (each[row].permute(1, 2, 0)[counts] for each in (z, v))
        first, label = theirs.argmax(1), label[counts]
        classes = first if target == 'teacher' else torch.where(label == 255, first, label)
        weight = weigh(theirs).double()
        total += (weight * formula(loss, mine, theirs, classes)).sum()
        count += weight.sum()
    return float(total / count)


@pytest.mark.parametrize('padded', [False, True])
@pytest.mark.parametrize('positions', ['labelled', 'all', 'unlabelled'])
@pytest.mark.parametrize('loss, target', [('kd', 'label'), ('dkd', 'label'), ('dkd', 'teacher'), ('table', 'label'),
                                          ('table', 'teacher')])
def test_positions_and_targets(loss, target, positions, padded):
    others = dict(see=dict(loss=LOSSES['kd'], positions='all'))
    model = with_terms(term=dict(loss=LOSSES[loss], positions=positions, target=target), **others)
    data = data_of(model, padded)
    value = model.loss(data['inputs'], data['data_samples'])['distill.loss_term']
    assert value.item() == pytest.approx(expected(model, data, loss, positions, target), rel=1e-4)


def confidence(v):
    return v.softmax(1).amax(1)


def certainty(v):
    p = v.softmax(1)
    return 1 + (p * p.log()).sum(1) / torch.log(torch.tensor(5., dtype=torch.float64))


@pytest.mark.parametrize('positions', ['labelled', 'all', 'unlabelled'])
@pytest.mark.parametrize('weight, weigh', [('confidence', confidence), ('entropy', certainty),
                                           (.5, lambda v: confidence(v) >= .5)])
def test_weights(weight, weigh, positions):
    """The mean over the positions divides by the sum of the weights."""
    model = with_terms(term=dict(loss=LOSSES['dkd'], positions=positions, weight=weight),
                       see=dict(loss=LOSSES['kd'], positions='all'))
    data = data_of(model, padded=True)
    value = model.loss(data['inputs'], data['data_samples'])['distill.loss_term']
    wanted = expected(model, data, 'dkd', positions, 'label', weigh=weigh)
    assert value.item() == pytest.approx(wanted, rel=1e-4)
    assert abs(wanted / expected(model, data, 'dkd', positions, 'label') - 1) > .02  # weights matter here


@pytest.mark.parametrize('loss, positions', [('kd', 'labelled'), ('dkd', 'all'), ('dkd', 'unlabelled')])
def test_logits_are_compared_at_the_size_of_the_students_head(loss, positions):
    """4 x 8 where the labels have 32 x 64; the teacher's map has that size."""
    model = with_terms(term=dict(loss=LOSSES[loss], positions=positions, size='head'),
                       see=dict(loss=LOSSES['kd'], positions='all'))
    data = data_of(model)
    value = model.loss(data['inputs'], data['data_samples'])['distill.loss_term']
    assert value.item() == pytest.approx(expected(model, data, loss, positions, 'label', size=(4, 8)), rel=1e-4)


@pytest.mark.parametrize('upsampled', [True, False])
def test_a_teacher_of_another_resolution_at_the_size_of_the_students_head(upsampled):
    teacher = segmentor(16, 'PSPHead', CLASSES, dilated=not upsampled)
    config = distilled(segmentor(num_classes=CLASSES), teacher, distill=dict(
        term=dict(loss=LOSSES['kd'], size='head', positions='all')))
    model = build(config).eval()
    data = data_of(model)
    value = model.loss(data['inputs'], data['data_samples'])['distill.loss_term']
    assert value.item() == pytest.approx(expected(model, data, 'kd', 'all', 'label', size=(4, 8)), rel=1e-4)


@pytest.mark.parametrize('positions', ['labelled', 'all', 'unlabelled'])
def test_features_have_positions_too(positions):
    model = with_terms(term=dict(loss=dict(type='mmseg_kd.AttentionTransferLoss'), on='backbone.layer3',
                                 positions=positions), see=dict(loss=LOSSES['kd'], positions='all'))
    data = data_of(model)
    value = model.loss(data['inputs'], data['data_samples'])['distill.loss_term']
    maps = [each.extract_feat(data['inputs'])[2].detach().double() for each in (model, model.teacher.model)]
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in data['data_samples']])[:, ::8, ::8]
    values = []
    for row in range(4):
        counts = {'labelled': labels[row] != 255, 'all': labels[row] >= 0,
                  'unlabelled': torch.full((4, 8), row in (1, 3))}[positions]
        if counts.any():
            q, r = (each[row].square().sum(0)[counts] for each in maps)
            values.append((q / q.norm() - r / r.norm()).square().sum())
    assert value.item() == pytest.approx(float(sum(values) / len(values)), rel=1e-4)


def test_a_loss_that_ignores_nothing_needs_no_label_to_be_a_class():
    model = with_terms(term=dict(loss=dict(LOSSES['kd'], ignore_index=None)), see=dict(loss=LOSSES['kd'],
                                                                                       positions='all'))
    data = data_of(model)
    value = model.loss(data['inputs'], data['data_samples'])['distill.loss_term'].item()
    for sample in (data['data_samples'][row] for row in (0, 2)):
        sample.gt_sem_seg.data[sample.gt_sem_seg.data == 255] = 0
    assert value == pytest.approx(expected(model, data, 'kd', 'labelled', 'label'), rel=1e-4)
    with pytest.raises(ValueError, match='`target` must hold classes'):
        needy = with_terms(term=dict(loss=dict(LOSSES['dkd'], ignore_index=None)))
        labelled = needy.data_preprocessor(batch(num_classes=CLASSES), True)
        needy.loss(labelled['inputs'], labelled['data_samples'])


def test_a_loss_from_elsewhere_gets_the_teachers_class_where_there_is_no_label():
    class Recorder(torch.nn.Module):
        def forward(self, student, teacher, target):
            self.seen = target
            return student.mean()

    model = with_terms(term=dict(loss=LOSSES['kd'], positions='unlabelled'))
    model.terms['term'].loss = recorder = Recorder()
    data = data_of(model)
    model.loss(data['inputs'], data['data_samples'])
    first = logits_of(model, data['inputs'], (32, 64))[1].argmax(1)
    assert (recorder.seen[[0, 2]] == 255).all() and torch.equal(recorder.seen[[1, 3]], first[[1, 3]])


@pytest.mark.parametrize('settings, message', [
    (dict(size='teacher'), r"`distill.term.size`: expected one of \['label', 'head'\]"),
    (dict(positions='void'), r"`distill.term.positions`: expected one of \['labelled', 'all', 'unlabelled'\]"),
    (dict(target='both'), r"`distill.term.target`: expected one of \['label', 'teacher'\]"),
    (dict(weight='foreground'), r"`distill.term.weight`: expected None or 'confidence', 'entropy', a confidence"),
    (dict(weight=1.5), 'a confidence between 0 and 1, got 1.5'),
    (dict(target='teacher'), r"`distill.term.target`: KDLoss compares logits without a target class"),
    (dict(on='backbone.layer3', weight=.5), r'`distill.term.weight`: 0.5 asks for the class scores of the teacher')])
def test_refusals(settings, message):
    with pytest.raises(ValueError, match=message):
        with_terms(term=dict(loss=LOSSES['kd'], **settings))


def test_pictures_that_no_term_sees_are_refused():
    model = with_terms(term=dict(loss=LOSSES['kd']))
    data = data_of(model)
    with pytest.raises(ValueError, match=r"no term sees them.*--cfg-options model.distill.term.positions=all"):
        model.loss(data['inputs'], data['data_samples'])


def plain_and_distilled(config, **settings):
    """mmseg's own model and the distilled one of the same weights; neither draws, both with standing statistics."""
    terms = dict(kd=dict(loss=dict(type='mmseg_kd.CWDLoss'), positions='all', on='backbone.layer4'
                         if config['backbone']['type'] == 'ResNetV1c' else 'logits'))
    teacher = config if terms['kd']['on'] == 'logits' else segmentor()
    ours = distilled(config, copy.deepcopy(teacher), distill=terms) | settings
    if config['type'] == 'CascadeEncoderDecoder':
        ours['type'] = 'mmseg_kd.DistilledCascadeEncoderDecoder'
    plain, ours = build(config).train(), build(ours).train()
    ours.load_state_dict(plain.state_dict())
    for model in (plain, ours):
        for module in model.modules():
            if isinstance(module, (torch.nn.modules.batchnorm._BatchNorm, torch.nn.Dropout, torch.nn.Dropout2d)):
                module.eval()
    return plain, ours


def assert_supervised_is_plain(plain, ours, size=(32, 64), rows=((0, 2), (0, 1), (3, ), (0, 1, 2, 3))):
    """mmseg's losses of the labelled pictures, whatever else is in the batch and wherever they stand."""
    ours.data_preprocessor.size = plain.data_preprocessor.size = size
    for labelled in rows:
        data = batch(4, *size, num_classes=plain.out_channels)
        for row, sample in enumerate(data['data_samples']):
            sample.gt_edge_map = PixelData(data=(sample.gt_sem_seg.data > 2).long())
            if row not in labelled:
                sample.set_metainfo(dict(unlabelled=True))
        alone = {key: [value[row] for row in labelled] for key, value in data.items()}
        torch.manual_seed(0)
        wanted = plain.loss(**plain.data_preprocessor(copy.deepcopy(alone), True))
        torch.manual_seed(0)
        got = ours.loss(**ours.data_preprocessor(data, True))
        assert set(got) == set(wanted) | {'distill.loss_kd'}
        for name, value in wanted.items():
            torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize('head', sorted(HEADS))
def test_the_supervised_loss_of_every_head_is_that_of_the_labelled_pictures(head):
    if head in NEEDS_OPS:
        pytest.importorskip('mmcv._ext', reason=f'{NEEDS_OPS[head]} needs mmcv with compiled ops')
    config, size = student(head)
    plain, ours = plain_and_distilled(config)
    # The matrices that LightHamHead begins with are drawn picture by picture: the first ones are alike.
    assert_supervised_is_plain(plain, ours, size, rows=((0, 1), ) if head == 'LightHamHead' else ((0, 2), (3, )))


def auxiliary(config, number):
    if not number:
        return config
    head = dict(copy.deepcopy(segmentor()['decode_head']), in_channels=32, in_index=2)
    return config | dict(auxiliary_head=[dict(head) for _ in range(number)] if number > 1 else head)


@pytest.mark.parametrize('divides_by_all', [True, False])
@pytest.mark.parametrize('name', ['auxiliary', 'two auxiliaries', 'cascade', 'upsample_in_loss', 'ohem'])
def test_the_supervised_loss_is_not_diluted(name, divides_by_all):
    config = cascade() if name == 'cascade' else segmentor(
        **dict(sampler=dict(type='OHEMPixelSampler', thresh=.7, min_kept=100)) if name == 'ohem' else {})
    config = auxiliary(config, 2 if name == 'two auxiliaries' else 1)
    heads = config['decode_head'] if name == 'cascade' else [config['decode_head']]
    for head in heads:
        head['loss_decode'] = dict(type='CrossEntropyLoss', avg_non_ignore=not divides_by_all)
    plain, ours = plain_and_distilled(config, upsample_in_loss=name == 'upsample_in_loss')
    assert_supervised_is_plain(plain, ours)


def test_without_any_label_there_is_no_supervised_loss():
    model = with_terms(term=dict(loss=LOSSES['dkd'], positions='all'))
    data = data_of(model)
    only = [data['data_samples'][row] for row in (1, 3)]
    for sample in only:
        del sample.gt_sem_seg  # as a data set of mmseg's without annotations gives it
    losses = model.loss(data['inputs'][[1, 3]], only)
    assert list(losses) == ['distill.loss_term'] and losses['distill.loss_term'] > 0


def with_auxiliary_heads(on, ours, theirs):
    student, teacher = segmentor(num_classes=CLASSES), segmentor(16, num_classes=CLASSES)
    config = distilled(auxiliary(student, ours), auxiliary(teacher, theirs),
                       distill=dict(term=dict(loss=LOSSES['kd'], on=on, positions='all')))
    for part in (config, config['teacher']['config']['model']):
        heads = part.get('auxiliary_head', [])
        for head in heads if isinstance(heads, list) else [heads]:
            head.update(num_classes=CLASSES, in_channels=4 * part['backbone']['base_channels'])
    return build(config).eval()


@pytest.mark.parametrize('on, ours, theirs', [
    ('auxiliary_head', 1, 1), ('auxiliary_head[1]', 2, 2), (('auxiliary_head', 'logits'), 1, 0),
    (('auxiliary_head[0]', 'auxiliary_head'), 2, 1), (('logits', 'auxiliary_head'), 0, 1)])
def test_auxiliary_heads_are_distilled(on, ours, theirs):
    """Their logits, by mmseg's own forward pass of the heads."""
    model = with_auxiliary_heads(on, ours, theirs)
    data = data_of(model)
    value = model.loss(data['inputs'], data['data_samples'])['distill.loss_term']
    rows = []
    for part, tap in zip((model, model.teacher.model), (on, on) if isinstance(on, str) else on, strict=True):
        heads = {'auxiliary_head': getattr(part, 'auxiliary_head', None), 'logits': part.decode_head}
        head = heads[tap] if tap in heads else part.auxiliary_head[int(tap[-2])]
        logits = head.forward(part.extract_feat(data['inputs'])).detach()
        logits = F.interpolate(logits, size=(32, 64), mode='bilinear', align_corners=False).double()
        rows.append(logits.permute(0, 2, 3, 1).reshape(-1, CLASSES))
    assert value.item() == pytest.approx(formula('kd', *rows, None).mean().item(), rel=1e-4)
    value.backward()
    part = model.decode_head if on[0] == 'logits' else model.auxiliary_head
    part = part[int(on[-2]) if isinstance(on, str) else 0] if isinstance(part, torch.nn.ModuleList) else part
    assert part.conv_seg.weight.grad.abs().sum() > 0


def test_an_auxiliary_head_learns_without_labels_too():
    model = with_auxiliary_heads('auxiliary_head', 1, 1)
    data = data_of(model)
    losses = model.loss(data['inputs'][[1, 3]], [data['data_samples'][row] for row in (1, 3)])
    assert list(losses) == ['distill.loss_term'] and losses['distill.loss_term'] > 0


@pytest.mark.parametrize('on, ours, theirs, message', [
    ('auxiliary_head', 1, 0, "the teacher has nothing to read at 'auxiliary_head'"),
    ('auxiliary_head', 2, 2, r"'auxiliary_head' is not one of the auxiliary heads .* 'auxiliary_head\[0\]' or"),
    ('auxiliary_head[2]', 2, 2, r"'auxiliary_head\[2\]' is not one of the auxiliary heads"),
    ('auxiliary_head[0]', 1, 1, r"'auxiliary_head\[0\]' is not one .* expected 'auxiliary_head'")])
def test_refusals_of_auxiliary_heads(on, ours, theirs, message):
    with pytest.raises(ValueError, match=f'`distill.term.on`: {message}'):
        with_auxiliary_heads(on, ours, theirs)
