"""Every config of the segmentation zoo is what its name says, trains its student as mmseg does, and is the only one."""
import json
from urllib.parse import urlparse

import pytest
from zoo import BACKBONES, CONFIGS, DATA, GRAMMAR, HEADS, METHODS, PAIRS, ZOO, models_of_mmseg, pair_of, parse, read

VANILLA = sorted((ZOO / 'vanilla').glob('*.py'))
#: What a file leaves at its top level for others to take, and no run reads.
_LEFT_OVER = ('distill', 'dual_head', 'review', 'stages')
_DISTILLATION = ('teacher', 'distill', 'dual_head')


def folder_of(method):
    """Of all DHKDs there is one."""
    name = method.replace('-', '_')
    return 'dhkd_reviewkd' if name.endswith('reviewkd') and 'dhkd' in name else 'dhkd' if 'dhkd' in name else name


def heads_of(model):
    return [model[name] for name in ('decode_head', 'auxiliary_head') if model.get(name) is not None]


def assert_is(model, name, classes):
    """The network, by its name, with so many classes in all heads."""
    head, _, backbone = name.partition('-')
    assert model.decode_head.type == HEADS[head]
    expected = BACKBONES[backbone]
    assert {key: model.backbone.get(key) for key in expected} == expected
    assert {each.num_classes for each in heads_of(model)} == {classes}


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_name_says_what_the_config_contains(path):
    config, name = read(path), parse(path)
    model = config.model
    dataset, classes = DATA[name['data']]
    crop = [int(name['height']), int(name['width'])]
    iterations = 1000 * int(name['kiloiters'])
    method = METHODS[name['method']]

    assert path.parent.name == folder_of(name['method'])
    assert_is(model, name['student'], classes)
    teacher = read(model.teacher.config.removeprefix('mmseg::').removesuffix('.py'))
    assert_is(teacher.model, name['teacher'], classes)
    assert {each[loader].dataset.type for each in (config, teacher)
            for loader in ('train_dataloader', 'val_dataloader')} == {dataset}

    assert {term: settings.loss.type for term, settings in model.distill.items()} == {
        term: f'mmseg_kd.{loss}' for term, (loss, _) in method.terms.items()}
    for term, (_, reads) in method.terms.items():
        settings = model.distill[term]
        if reads == 'stages':
            assert len(settings.on[0]) == len(settings.on[1]) == 4 and settings.adapter.kind == 'review'
        else:
            assert settings.get('on', 'logits') == reads and 'adapter' not in settings
    assert model.get('dual_head') == (method.dual_head and dict(kind=method.dual_head))
    assert config.optim_wrapper.type == ('mmseg_kd.GradAlignOptimWrapper' if method.aligned else 'OptimWrapper')

    pipeline = {step.type: step for step in config.train_dataloader.dataset.pipeline}
    assert pipeline['RandomCrop'].crop_size == model.data_preprocessor.size == crop
    assert config.train_cfg.max_iters == max(each.end for each in config.param_scheduler) == iterations
    assert config.train_dataloader.batch_size == int(name['batch'])


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_the_student_trains_as_mmseg_has_it(path):
    """All that is not distillation is mmseg's own config of the student, to the last setting."""
    config, theirs, name = read(path), read(PAIRS[pair_of(path)]), parse(path)
    for part in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'param_scheduler',
                 'train_cfg', 'default_hooks'):
        assert config[part] == theirs[part], part
    optimization = {key: value for key, value in config.optim_wrapper.items() if key not in ('type', 'level')}
    assert optimization == {key: value for key, value in theirs.optim_wrapper.items() if key != 'type'}
    student = {key: value for key, value in config.model.items() if key not in _DISTILLATION}
    assert student.pop('type') == f'mmseg_kd.Distilled{theirs.model.type}'
    assert student == expected_student(path, theirs.model)
    # How many GPUs a batch stands for, a config of mmseg says in its name alone.
    assert '_{gpus}xb{batch}-{kiloiters}k_'.format(**name) in PAIRS[pair_of(path)]


def expected_student(path, model):
    """mmseg's model; of PSPNet with ResNet-18 it has one on Cityscapes alone, and one UPerNet pads to no size."""
    _, student, data = pair_of(path)
    model = dict(model)
    if student == 'upernet-r18':
        assert 'size' not in model['data_preprocessor']
        model['data_preprocessor'].size = [512, 512]
    if student == 'pspnet-r18-d8' and data != 'cityscapes':
        small = read('pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024').model
        for part in ('pretrained', 'backbone', 'decode_head', 'auxiliary_head'):
            model[part] = small[part]
        for head in heads_of(model):
            head.num_classes = DATA[data][1]
    return {key: value for key, value in model.items() if key != 'type'}


@pytest.mark.parametrize('path', VANILLA, ids=lambda path: path.stem)
def test_what_trains_a_student_alone_is_what_the_zoo_distils(path):
    config = read(path)
    zoo = read(next(each for each in CONFIGS if each.stem.endswith('pspnet-r18-d8' + path.stem[len('pspnet_r18-d8'):])))
    for key in ('teacher', 'distill', 'dual_head'):
        zoo.model.pop(key, None)
    zoo.model.type = zoo.model.type.removeprefix('mmseg_kd.Distilled')
    for left_over in _LEFT_OVER:
        zoo.pop(left_over, None)
    assert zoo.to_dict() == config.to_dict()


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_teacher_is_published_by_mmseg(path):
    """Its config and its checkpoint stand side by side in a metafile of mmseg; hosts differ by distribution."""
    teacher = read(path).model.teacher
    published = models_of_mmseg()[f'configs/{teacher.config.removeprefix("mmseg::")}']
    assert urlparse(teacher.checkpoint).path.partition('/v0.5/')[2] == (
        urlparse(published['Weights']).path.partition('/v0.5/')[2]) != ''
    assert set(teacher) == {'config', 'checkpoint'}


def test_every_method_has_every_pair():
    assert {(parse(path)['method'], pair_of(path)) for path in CONFIGS} == {
        (method, pair) for method in METHODS for pair in PAIRS}
    assert len(CONFIGS) == len(METHODS) * len(PAIRS)


def test_no_two_configs_are_the_same():
    runs = {}
    for path in CONFIGS + VANILLA:
        settings = {key: value for key, value in read(path).to_dict().items() if key not in _LEFT_OVER}
        runs.setdefault(json.dumps(settings, sort_keys=True), []).append(path.name)
    assert [names for names in runs.values() if len(names) > 1] == []


@pytest.mark.parametrize('name', ['dkd_pspnet-r101-d8_4xb2-80k_cityscapes-512x1024', 'dkd_a_b_4xb2-80k_cityscapes',
                                  'dkd_a_b_4xb2_cityscapes-512x1024'])
def test_the_grammar_refuses_a_name_that_lacks_something(name):
    assert GRAMMAR.fullmatch(name) is None
