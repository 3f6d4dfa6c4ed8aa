"""Pure-Python configs, whose types are classes, through the tools: the same as configs whose types are names."""
from importlib import import_module

import mmseg.registry as registries
import pytest
import torch
from mmengine.registry import DefaultScope
from tiny import ROOT, build, command, distilled, run_config, segmentor

from mmseg_kd.config import read_config, student_config
from mmseg_kd.config_names import name_types, type_name
from mmseg_kd.engine.runner_defaults import add_training_hooks, use_teacher_cache
from mmseg_kd.export.plain import plain_config

REGISTRIES = [getattr(registries, name) for name in (
    'MODELS', 'DATASETS', 'TRANSFORMS', 'HOOKS', 'LOOPS', 'OPTIM_WRAPPERS', 'OPTIMIZERS', 'PARAM_SCHEDULERS',
    'METRICS', 'DATA_SAMPLERS', 'VISUALIZERS')]


def as_pure_python(config):
    """The text of a config with every type as an imported class, as mmengine's pure-Python configs are written."""
    found = {}

    def text(value):
        if isinstance(value, dict):
            return 'dict(' + ', '.join(f'{key}={text(each) if key != "type" else kind(each)}'
                                       for key, each in value.items()) + ')'
        if isinstance(value, (list, tuple)):
            inner = ''.join(f'{text(each)}, ' for each in value)
            return f'[{inner}]' if isinstance(value, list) else f'({inner})'
        return repr(value)

    def kind(name):
        with DefaultScope.overwrite_default_scope('mmseg'):
            cls = next(each for each in (registry.get(name) for registry in REGISTRIES) if each is not None)
        found[cls.__name__] = cls.__module__
        return cls.__name__
    lines = [f'{key} = {text(value)}' for key, value in config.to_dict().items()]
    return '\n'.join([f'from {module} import {name}' for name, module in sorted(found.items())] + lines) + '\n'


@pytest.fixture(scope='module')
def configs(mini_cityscapes, tmp_path_factory):
    """Folder with both forms of a config, whose hooks are ours in part."""
    folder = tmp_path_factory.mktemp('pure')
    torch.save(build(segmentor(16, 'PSPHead')).state_dict(), folder / 'teacher.pth')
    config = run_config(distilled(segmentor(), segmentor(16, 'PSPHead'), folder / 'teacher.pth'), mini_cityscapes,
                        max_iters=3, custom_hooks=[dict(type='mmseg_kd.FiniteStepHook', skip=3),
                                                   dict(type='mmseg_kd.DistillStatisticsHook', interval=2)])
    config.dump(folder / 'named.py')
    (folder / 'pure.py').write_text(as_pure_python(config))
    assert 'type=DistilledEncoderDecoder' in (folder / 'pure.py').read_text()
    return folder


def test_it_trains_resumes_and_is_tested_to_the_same_bits(configs):
    for name in ('named', 'pure'):
        command('tools/train.py', configs / f'{name}.py', '--work-dir', configs / name)
    command('tools/train.py', configs / 'pure.py', '--work-dir', configs / 'pure', '--resume', '--cfg-options',
            'train_cfg.max_iters=4')
    ends = [torch.load(configs / name / 'iter_3.pth', weights_only=False)['state_dict'] for name in ('named', 'pure')]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())
    assert (configs / 'pure/iter_4.pth').is_file()
    said = command('tools/test.py', configs / 'pure.py', configs / 'pure/iter_3.pth', '--work-dir', configs / 'test')
    assert 'mIoU' in said.stdout


def test_a_hook_that_is_there_is_not_added_again(configs):
    config = read_config(str(configs / 'pure.py'), 'config')
    said = add_training_hooks(config)
    names = [type_name(hook) for hook in config.custom_hooks]
    assert len(set(names)) == len(names) and 'finite_step' not in said
    assert next(hook for hook in config.custom_hooks if type_name(hook) == 'FiniteStepHook').skip == 3
    assert type_name(config.default_hooks['checkpoint']) == 'SafeCheckpointHook'


def test_all_who_look_at_types_see_them(configs):
    config = read_config(str(configs / 'pure.py'), 'config')
    assert type_name(student_config(config.model)) == 'EncoderDecoder'
    # Exported: no part of mmseg_kd is left.
    assert 'mmseg_kd' not in plain_config(config).pretty_text
    tool = import_module('runpy').run_path(str(ROOT / 'tools/train.py'))
    tool['enable_amp'](config)
    assert type_name(config.optim_wrapper) == 'AmpOptimWrapper'
    # As a teacher's config, with our distilled types gone from it.
    build(dict(distilled(segmentor(), segmentor()), teacher=dict(config=str(configs / 'pure.py'))))
    # A teacher's cache is made from it, and its transforms find their places.
    command('tools/cache_teacher.py', configs / 'pure.py', '--out', configs / 'cache')
    config.model.teacher = dict(cache=str(configs / 'cache'))
    use_teacher_cache(config)
    steps = [type_name(step) for step in config.train_dataloader.dataset.pipeline]
    assert steps[:4] == ['LoadImageFromFile', 'LoadAnnotations', 'LoadTeacherLogits', 'RandomFlip']
    assert steps[-1] == 'PackDistillInputs'


def test_classes_are_found_where_a_pure_python_config_imports_them():
    for room in ('mmseg_kd', 'mmseg_kd.distillers', 'mmseg_kd.distillers.segmentation'):
        assert import_module(room).DistilledEncoderDecoder.__name__ == 'DistilledEncoderDecoder'


def test_what_a_type_means():
    class CheckpointHook:
        pass
    assert type_name(dict(type='mmseg_kd.KDLoss')) == type_name('mmseg_kd.losses.kd.KDLoss') == 'KDLoss'
    assert type_name('FCNHead') == type_name(import_module('mmseg.models').FCNHead) == 'FCNHead'
    assert type_name(dict()) == type_name(None) == ''
    # A class of somebody else's is not mistaken for mmengine's of the same name.
    assert type_name(CheckpointHook) != 'CheckpointHook' and type_name('mine.CheckpointHook') == 'mine.CheckpointHook'
    settings = [dict(type=torch.nn.ReLU, inner=dict(type='BN')), (dict(type=print), )]
    name_types(settings)
    assert settings == [dict(type='torch.nn.modules.activation.ReLU', inner=dict(type='BN')),
                        (dict(type='builtins.print'), )]
