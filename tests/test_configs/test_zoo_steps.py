"""Configs of the segmentation zoo with their real networks: built, and one training step of each on a small crop.

By default every pair by one method and every method on one pair; the marker ``zoo`` has the others, which
``tools/test.sh --all`` runs (three minutes of one core).
"""
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.structures import PixelData
from tiny import batch, build_part
from torch.nn import functional as F
from zoo import CONFIGS, DATA, METHODS, ZOO, pair_of, parse, read, sizes_of_pairs

from mmseg_kd.distillers import base

SIDE = 64
# All that a term can read at once: two heads, four stages, and a teacher's logits.
EVERY_PAIR_BY, EVERY_METHOD_ON = 'dhkd-linear-reviewkd', 'pidnet-s'
MAIN = {'decode.loss_ce', 'decode.acc_seg'}
#: What mmseg logs of the students themselves.
SUPERVISED = {
    'pidnet-s': {'decode.loss_sem_p', 'decode.loss_sem_i', 'decode.loss_bd', 'decode.loss_sem_bd', 'decode.acc_seg'},
    'segformer-mit-b0': MAIN}
WITH_AUXILIARY_HEAD = MAIN | {'aux.loss_ce', 'aux.acc_seg'}


@pytest.fixture(scope='module', autouse=True)
def teachers():
    """The teacher of the pair before is kept: what takes a second is not done again for each method."""
    latest = {}
    own = base.build_teachers

    def build_teachers(settings, *args):
        if latest.get('config') != settings.config:
            latest.update(config=settings.config, teachers=own(settings, *args))
        return latest['teachers']

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, 'build_teachers', build_teachers)
        yield


def read_for_a_step(path):
    """The config without what needs a download or a whole crop."""
    config = read(path)
    config.model.teacher.pop('checkpoint')
    config.model.data_preprocessor.size = (SIDE, SIDE)
    # A block that is dropped for both pictures, as one in some hundred is, learns nothing in this step.
    if config.model.backbone.type == 'MixVisionTransformer':
        config.model.backbone.drop_path_rate = 0.
    return config


def network(config):
    model = build_part(config.model).train()
    for term in model.terms.values():
        term.scale = 1.  # beyond its warm-up
    return model


def pictures(classes):
    """Two random pictures with labels, and with the edges that PIDNet learns from."""
    data = batch(2, SIDE, SIDE, classes)
    for sample in data['data_samples']:
        sample.gt_edge_map = PixelData(data=(sample.gt_sem_seg.data % 2))
    return data


def cases():
    for path in CONFIGS:
        name = parse(path)
        light = name['method'] == EVERY_PAIR_BY or name['student'] == EVERY_METHOD_ON
        yield pytest.param(path, id=path.stem, marks=[] if light else pytest.mark.zoo)


@pytest.mark.parametrize('path', cases())
def test_one_training_step(path):
    config, name = read_for_a_step(path), parse(path)
    classes = DATA[name['data']][1]
    model = network(config)
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    optimizer.message_hub.log_scalars.pop('train/align_cosine', None)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    logs = model.train_step(pictures(classes), optimizer)

    method = METHODS[name['method']]
    terms = {f'distill.loss_{term}' for term in method.terms}
    assert set(logs) == {'loss'} | SUPERVISED.get(name['student'], WITH_AUXILIARY_HEAD) | terms
    assert ('train/align_cosine' in optimizer.message_hub.log_scalars) == method.aligned
    assert all(torch.isfinite(value).all() for value in logs.values())
    assert all(logs[term] != 0 for term in terms)
    # The step leaves alone what no gradient reached; a bias may be still before a BatchNorm, which takes it off.
    still = [key for key, value in model.named_parameters() if torch.equal(value, before[key])]
    assert not [key for key in still if key.endswith('.weight')]
    assert all(value.isfinite().all() for value in model.parameters())

    student = sum(value.numel() for key, value in model.named_parameters() if not key.startswith('distill.'))
    teacher = sum(value.numel() for value in model.teacher.model.parameters())
    assert sizes_of_pairs()[pair_of(path)] == (f'{student / 1e6:.2f} M', f'{teacher / 1e6:.2f} M')


def plain_logits(path):
    """A step's main logits as plain mmseg has them, student (with a graph) and teacher, and the model and its batch."""
    model = network(read_for_a_step(path))
    for head in (model.decode_head, getattr(model, 'auxiliary_head', None)):
        if head is not None:
            head.dropout = None  # two passes draw two masks
    data = model.data_preprocessor(pictures(19), True)
    student = model.decode_head.forward(model.extract_feat(data['inputs']))
    teacher = model.teacher.model
    metas = [dict(img_shape=(SIDE, SIDE), ori_shape=(SIDE, SIDE), pad_shape=(SIDE, SIDE))] * 2
    with torch.no_grad():
        return model, data, student, teacher.encode_decode(data['inputs'], metas)


@pytest.mark.parametrize('pair, main, untouched', [
    # PIDNet trains three outputs and predicts by the second; the detail branch and the boundaries are the labels' work.
    ('pidnet-l_pidnet-s', 1, ('decode_head.p_cls_seg.', 'decode_head.d_cls_seg.', 'decode_head.p_head.',
                              'decode_head.d_head.')),
    ('pspnet-r101-d8_pspnet-r18-d8', None, ('auxiliary_head.', )),
])
def test_the_main_output_is_distilled_and_no_other(pair, main, untouched):
    path = next(path for path in CONFIGS if f'/kd_{pair}_' in str(path) and 'cityscapes' in path.name)
    model, data, student, teacher = plain_logits(path)
    student = student if main is None else student[main]
    logits = F.interpolate(student, (SIDE, SIDE), mode='bilinear', align_corners=model.decode_head.align_corners)
    settings = read(path).model.distill.kd.loss
    log_q, log_p = ((each.double() / settings.temperature).log_softmax(1) for each in (logits, teacher))
    divergence = (log_p.exp() * (log_p - log_q)).sum(1)
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in data['data_samples']])
    expected = settings.loss_weight * settings.temperature**2 * divergence[labels != 255].mean()

    losses = model(**data, mode='loss')
    assert losses['distill.loss_kd'].item() == pytest.approx(expected.item(), rel=1e-4)
    losses['distill.loss_kd'].backward()
    for key, value in model.named_parameters():
        assert (value.grad is None) == key.startswith(untouched), key


def test_a_pair_is_light_enough_to_be_left_out_only_where_another_test_has_it():
    light = [path for path in CONFIGS if parse(path)['method'] == EVERY_PAIR_BY or EVERY_METHOD_ON in path.name]
    assert {pair_of(path) for path in light} == {pair_of(path) for path in CONFIGS}
    assert {parse(path)['method'] for path in light} == set(METHODS)


def test_pidnets_stages_are_named_where_the_pair_is():
    """Its backbone returns other maps in training than in inference, of which a teacher gives one."""
    for path in (ZOO / 'reviewkd').glob('*.py'):
        taps = {tap.partition('[')[0] for side in read(path).model.distill.review.on for tap in side}
        assert ('backbone' in taps) == ('pidnet' not in path.name)
