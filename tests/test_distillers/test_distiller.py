"""``Distiller``: plain modules, loops of other people."""
import copy
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmseg_kd.distillers.distiller import Distiller
from mmseg_kd.losses import BinaryKLLoss, CWDLoss, DKDLoss, FeatureMSELoss, KDLoss

CLASSES = 5


def classifier(width=8, seed=0):
    """(N, 3, 16, 16) to (N, 5), with a name for everything."""
    torch.manual_seed(seed)
    return nn.Sequential(OrderedDict(
        stem=nn.Conv2d(3, width, 3, stride=2), act=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(),
        fc=nn.Linear(width, CLASSES)))


class Segmentor(nn.Module):
    """(N, 3, H, W) to maps at a quarter of the size, returned as somebody else's library does."""

    def __init__(self, width=8, wrap=lambda logits: logits, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, stride=4, padding=1), nn.BatchNorm2d(width))
        self.head = nn.Conv2d(width, CLASSES, 1)
        self.wrap = wrap

    def forward(self, pixel_values):
        return self.wrap(self.head(torch.relu(self.stem(pixel_values))))


def images(seed=1):
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def maps(seed=2):
    labels = torch.randint(0, CLASSES, (4, 16, 16), generator=torch.Generator().manual_seed(seed))
    labels[:, :2] = 255
    return labels


LABELS = torch.tensor([0, 1, 4, 2])


def dkd(student, teacher, labels, alpha=1., beta=2., temperature=4.):
    """Zhao et al.'s DKD of (N, C), written anew in float64 from its two parts."""
    p, q = ((logits.double() / temperature).softmax(1) for logits in (student, teacher))
    hit = F.one_hot(labels, p.shape[1]).bool()
    pt, qt = p[hit], q[hit]
    target = qt * (qt / pt).log() + (1 - qt) * ((1 - qt) / (1 - pt)).log()
    p, q = (each.masked_fill(hit, 0) / (1 - each[hit])[:, None] for each in (p, q))
    rest = (q * (q / p).log()).masked_fill(hit, 0).sum(1)
    return (alpha * target + beta * rest).mean() * temperature**2


def test_the_losses_of_a_classifier_are_cross_entropy_and_the_papers_formula():
    student, teacher = classifier(), classifier(16, seed=1)
    wanted = F.cross_entropy(student(images()), LABELS), dkd(student(images()), teacher(images()), LABELS)
    loss, parts = Distiller(student, teacher, dict(dkd=DKDLoss(beta=2., temperature=4.)))(images(), LABELS)
    assert list(parts) == ['loss_supervised', 'distill.loss_dkd']
    torch.testing.assert_close(parts['loss_supervised'], wanted[0])
    torch.testing.assert_close(parts['distill.loss_dkd'].double(), wanted[1], rtol=1e-5, atol=0)
    torch.testing.assert_close(loss.double(), sum(wanted).double(), rtol=1e-5, atol=0)
    assert loss.requires_grad and not any(value.requires_grad for value in parts.values())
    assert [float(part) for part in loss.objectives] == pytest.approx([float(part) for part in parts.values()])


def test_maps_are_compared_at_the_labels_and_void_counts_nowhere():
    student, teacher = Segmentor(), Segmentor(16, seed=1)
    distiller = Distiller(student, teacher, dict(dkd=DKDLoss(beta=2., temperature=4.)), ignore_index=255)
    ours, theirs = (F.interpolate(net(images()), size=(16, 16), mode='bilinear') for net in (student, teacher))
    labels, valid = maps(), maps() != 255
    rows = [each.permute(0, 2, 3, 1)[valid] for each in (ours, theirs)]
    loss, parts = distiller(images(), labels)
    torch.testing.assert_close(parts['loss_supervised'], F.cross_entropy(ours, labels, ignore_index=255))
    torch.testing.assert_close(parts['distill.loss_dkd'].double(), dkd(*rows, labels[valid]), rtol=1e-5, atol=0)


RETURNS = {
    'a dict': (lambda logits: dict(out=logits, aux=logits * 0), None),
    'an object': (lambda logits: SimpleNamespace(logits=logits), None),
    'by key': (lambda logits: dict(main=logits), 'main'),
    'by index': (lambda logits: (logits * 0, logits), 1),
    'by dotted name': (lambda logits: SimpleNamespace(heads=[dict(seg=logits)]), 'heads.0.seg'),
}


@pytest.mark.parametrize('wrap, output', RETURNS.values(), ids=RETURNS)
def test_logits_are_found_in_what_networks_return(wrap, output):
    plain = Distiller(Segmentor(), Segmentor(16, seed=1), dict(kd=KDLoss()), ignore_index=255)(images(), maps())[1]
    teacher = Segmentor(16, wrap, seed=1)
    teacher = teacher if output is None else dict(network=teacher, output=output)
    distiller = Distiller(Segmentor(wrap=wrap), teacher, dict(kd=KDLoss()), output=output, ignore_index=255)
    assert distiller(images(), maps())[1] == plain
    assert distiller(dict(pixel_values=images()), maps())[1] == plain
    assert distiller((images(), ), maps())[1] == plain


def test_without_labels_only_the_terms_count_at_all_positions():
    terms = dict(kd=KDLoss(), dkd=DKDLoss())
    distiller = Distiller(Segmentor(), Segmentor(16, seed=1), terms, ignore_index=255)
    parts = distiller(images())[1]
    first = F.interpolate(distiller.teacher.model(images()), size=(16, 16), mode='bilinear').argmax(1)
    labelled = distiller(images(), first)[1]
    assert set(parts) == {'distill.loss_kd', 'distill.loss_dkd'}
    assert all(parts[name] == labelled[name] for name in parts)

    distiller = Distiller(classifier(), classifier(16, seed=1), terms)
    parts, labelled = distiller(images())[1], distiller(images(), distiller.teacher.model(images()).argmax(1))[1]
    assert all(parts[name] == labelled[name] for name in parts)


def test_a_term_chooses_its_positions_among_images_as_among_pixels():
    student, teacher = classifier(), classifier(16, seed=1)
    labels = torch.where(torch.arange(4) < 2, LABELS, -100)
    rows = [logits.detach().double() for logits in (student(images()), teacher(images()))]
    log_p, log_q = (logits.log_softmax(1) for logits in rows)
    kl = (log_q.exp() * (log_q - log_p)).sum(1)
    confidence = log_q.exp().amax(1)
    threshold = float(confidence.sort().values[1:3].mean())
    def value(**settings):
        terms = dict(kd=dict(loss=KDLoss(temperature=1.), **settings))
        return Distiller(student, teacher, terms)(images(), labels)[1]['distill.loss_kd'].double()
    for settings, wanted in ((dict(), kl[:2].mean()), (dict(positions='all'), kl.mean()),
                             (dict(positions='all', weight=threshold), kl[confidence >= threshold].mean()),
                             (dict(positions='all', weight='confidence'),
                              (kl * confidence).sum() / confidence.sum())):
        torch.testing.assert_close(value(**settings), wanted, rtol=1e-5, atol=0)


def test_a_frozen_teacher_and_a_student_that_stays_a_plain_module():
    student, teacher = Segmentor(), Segmentor(16, seed=1)
    keys, weights = list(student.state_dict()), copy.deepcopy(teacher.state_dict())
    distiller = Distiller(student, teacher, dict(kd=KDLoss(), mse=dict(
        loss=FeatureMSELoss(), on='stem', adapter=dict(kind='linear'))), ignore_index=255).train()
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        distiller(images(), maps())[0].backward()
        optimizer.step()
    assert list(distiller.student.state_dict()) == keys
    assert all(torch.equal(value, weights[name]) for name, value in teacher.state_dict().items())
    assert not teacher.training and not any(parameter.requires_grad for parameter in teacher.parameters())
    assert set(distiller.state_dict()) == {f'student.{key}' for key in keys} | {
        'distill.terms.mse.adapters.0.0.weight', 'distill.terms.mse.adapters.0.0.bias'}
    assert all(parameter.grad.abs().sum() > 0 for parameter in distiller.distill.parameters())


@pytest.mark.parametrize('network, layer, labels', [(classifier, 'fc', LABELS), (Segmentor, 'head', maps())])
def test_the_dual_head_takes_the_distillation_off_the_main_classifier(network, layer, labels):
    distiller = Distiller(network(), network(16, seed=1), dict(dhkd=dict(loss=BinaryKLLoss(), on='aux_logits')),
                          dual_head=dict(kind='linear'), classifier=layer, ignore_index=255)
    loss, _ = distiller(images(), labels)
    main, second = distiller.main_classifier().weight, distiller.auxiliary_classifier.weight
    assert second.shape == main.shape
    supervised, distillation = loss.objectives
    assert torch.autograd.grad(distillation, [main, second], retain_graph=True, allow_unused=True)[0] is None
    assert torch.autograd.grad(supervised, [main, second], allow_unused=True)[1] is None


def test_schedules_are_told_the_time():
    distiller = Distiller(classifier(), classifier(16, seed=1), dict(
        kd=dict(loss=KDLoss(), schedule=dict(warmup=4, stop=6)),
        dkd=dict(loss=DKDLoss(), schedule=dict(stop=2, by_epoch=True))))
    with pytest.raises(ValueError, match='schedule'):
        distiller(images(), LABELS)
    with pytest.raises(ValueError, match=r'terms.dkd.schedule.*set_time\(step, epoch\)'):
        distiller.set_time(0)
    distiller.set_time(0, 0)
    first = distiller(images(), LABELS)[1]
    distiller.set_time(3, 2)
    full = distiller(images(), LABELS)[1]
    torch.testing.assert_close(4 * first['distill.loss_kd'], full['distill.loss_kd'])
    assert first['distill.loss_dkd'] > 0 and full['distill.loss_dkd'] == 0
    distiller.set_time(6, 2)
    calls = []
    distiller.teacher.model.register_forward_hook(lambda *_: calls.append(1))
    assert distiller(images(), LABELS)[1]['distill.loss_kd'] == 0 and not calls


def train(distiller, steps):
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        distiller(images(), maps())[0].backward()
        optimizer.step()
        distiller.update_averages()


def test_a_students_own_average_teaches_and_resumes():
    def build():
        return Distiller(Segmentor(), dict(type='ema', momentum=0.1), dict(kd=KDLoss()), ignore_index=255)
    straight, halves, resumed = build(), build(), build()
    history = []
    optimizer = torch.optim.SGD(straight.parameters(), lr=0.5)
    history.append(straight.student.head.weight.detach().clone())
    for _ in range(4):
        optimizer.zero_grad()
        straight(images(), maps())[0].backward()
        optimizer.step()
        straight.update_averages()
        history.append(straight.student.head.weight.detach().clone())
    # While the warm-up lasts (1 / (t + 1) > 0.1) the average is the plain mean of all weights so far.
    torch.testing.assert_close(straight.teacher.model.head.weight, torch.stack(history).mean(0))
    train(halves, 2)
    resumed.load_state_dict(copy.deepcopy(halves.state_dict()))
    train(resumed, 2)
    ends = straight.state_dict(), resumed.state_dict()
    assert list(ends[0]) == list(ends[1]) and 'ema_teacher.0.head.weight' in ends[0]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    with pytest.raises(RuntimeError, match=r'Missing.*ema_teacher.0.head.weight'):
        build().load_state_dict({name: value for name, value in ends[0].items() if 'ema' not in name})
    with torch.no_grad():
        straight(images(), maps())
    straight(images(), maps())[0].backward()
    torch.optim.SGD(straight.parameters(), lr=0.5).step()
    with pytest.raises(ValueError, match=r'distiller.update_averages\(\) after each optimizer.step'):
        straight(images(), maps())


def test_several_teachers_and_a_term_of_features():
    first, second = Segmentor(8, seed=1), Segmentor(8, seed=2)
    def value(teacher, terms):
        return Distiller(Segmentor(), teacher, terms, supervised=None, ignore_index=255)(images(), maps())[0].double()
    for terms in (dict(kd=KDLoss()), dict(cwd=dict(loss=CWDLoss(), on='stem'))):
        one, other = value(first, terms), value(second, terms)
        torch.testing.assert_close(value([first, second], terms), (one + other) / 2)
        weighted = [dict(network=first, weight=3.), dict(network=second, weight=1.)]
        torch.testing.assert_close(value(weighted, terms), 3 * one + other)


def test_a_teacher_with_a_normalisation_of_its_own_sees_its_own_images():
    seen = []
    teacher = Segmentor(seed=1)
    teacher.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    settings = dict(type='module', build=lambda: teacher, mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25])
    with pytest.raises(ValueError, match='`images`: the teacher has a normalisation of its own'):
        Distiller(Segmentor(), settings, dict(kd=KDLoss()))
    distiller = Distiller(Segmentor(), settings, dict(kd=KDLoss()), ignore_index=255,
                          images=dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]))
    raw = torch.rand(4, 3, 16, 16)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
    distiller((raw - mean) / std, maps())
    torch.testing.assert_close(seen[-1], (raw - 0.5) / 0.25)


def test_ones_own_supervised_loss_sees_what_the_student_returned():
    student = Segmentor(wrap=lambda logits: dict(out=logits, aux=2 * logits))
    def own(returned, labels):
        return returned['aux'].sum() + labels['number']
    distiller = Distiller(student, Segmentor(seed=1), dict(kd=KDLoss()), supervised=own)
    parts = distiller(images(), dict(number=3.))[1]
    torch.testing.assert_close(parts['loss_supervised'], 2 * student.wrap(student(images())['out'])['out'].sum() + 3)


BAD = {
    'no module': (dict(student='resnet18'), '`student`: expected an nn.Module, got a str'),
    'teacher': (dict(teacher='resnet50'), '`teacher`: expected'),
    'network': (dict(teacher=dict(network=3)), '`teacher.network`: expected an nn.Module, got a int'),
    'supervised': (dict(supervised='mse'), "`supervised`: expected 'cross_entropy'"),
    'ignore_index': (dict(ignore_index=None), '`ignore_index`: expected a whole number, got None'),
    'no terms': (dict(terms={}), 'expected dict'),
    'images': (dict(images=dict(mean=[0.5])), '`images.std`: expected one number for each channel'),
    'no such layer': (dict(terms=dict(dhkd=dict(loss=BinaryKLLoss(), on='aux_logits')),
                           dual_head=dict(kind='linear'), classifier='act'), r"`classifier`: .*'act'.*'fc'"),
    'no such module': (dict(terms=dict(mse=dict(loss=FeatureMSELoss(), on='stm'))), r"nothing to read at 'stm'.*stem"),
    'channels': (dict(terms=dict(mse=dict(loss=FeatureMSELoss(), on='stem'))), 'has 8 channels.*16'),
}


@pytest.mark.parametrize('settings, message', BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused_before_training(settings, message):
    given = dict(student=classifier(), teacher=classifier(16), terms=dict(kd=KDLoss())) | settings
    with pytest.raises(ValueError, match=message):
        Distiller(**given)


def test_outputs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match='`output`: .*no \'out\'|`output`: expected a tensor'):
        Distiller(Segmentor(wrap=lambda logits: dict(a=logits)), Segmentor(), dict(kd=KDLoss()))(images(), maps())
    with pytest.raises(ValueError, match='`teacher.output`'):
        Distiller(Segmentor(), Segmentor(wrap=lambda logits: (logits, logits)), dict(kd=KDLoss()))(images(), maps())
    other = nn.Sequential(nn.Flatten(), nn.Linear(768, CLASSES + 1))
    with pytest.raises(ValueError, match='`terms.kd`: .*the student has 5 classes, the teacher 6'):
        Distiller(classifier(), other, dict(kd=KDLoss()))(images(), LABELS)
    with pytest.raises(ValueError, match=r'`terms.kd.on`: expected vectors'):
        Distiller(classifier(), Segmentor(), dict(kd=KDLoss()))(images(), LABELS)
