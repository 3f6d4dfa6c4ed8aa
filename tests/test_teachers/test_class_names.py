"""Classes in another order are matched by name, others are refused; names that nobody knows are not compared."""
import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.datasets import CityscapesDataset
from tiny import build, command, distilled, run_config, segmentor

from mmseg_kd.engine.runner_defaults import add_training_hooks
from mmseg_kd.teachers.class_names import check_config, check_names, names_in_checkpoint, names_in_config

NAMES = list(CityscapesDataset.METAINFO['classes'])
SWAPPED = [NAMES[1], NAMES[0], *NAMES[2:]]
HOOK = [dict(type='mmseg_kd.ClassNamesHook')]
CITYSCAPES = dict(train_dataloader=dict(dataset=dict(type='CityscapesDataset')))


@pytest.mark.parametrize('dataset, expected', [
    (dict(type='CityscapesDataset'), NAMES),
    (dict(type='mmseg.CityscapesDataset', _scope_='mmengine'), NAMES),
    (dict(type='RepeatDataset', times=3, dataset=dict(type='CityscapesDataset')), NAMES),
    (dict(type='ConcatDataset', datasets=[dict(type='CityscapesDataset'), dict(type='ADE20KDataset')]), NAMES),
    (dict(type='CityscapesDataset', metainfo=dict(classes=('road', 'car'))), ['road', 'car']),
    (dict(type='BaseSegDataset'), None),
    (dict(type='NobodysDataset'), None),
], ids=str)
def test_names_of_a_config(dataset, expected):
    names = names_in_config(Config(dict(val_dataloader=dict(dataset=dataset))), 'mmseg')
    assert names == (None if expected is None else tuple(expected))


@pytest.mark.parametrize('checkpoint, expected', [
    (dict(meta=dict(dataset_meta=dict(classes=('a', 'b')))), ('a', 'b')),
    (dict(meta=dict(CLASSES=['a', 'b'])), ('a', 'b')),
    (dict(meta=dict(dataset_meta=dict(palette=[]))), None), (dict(meta=None), None), (dict(), None), ([], None)],
    ids=str)
def test_names_of_a_checkpoint(checkpoint, expected):
    assert names_in_checkpoint(checkpoint) == expected


def test_spelling_does_not_matter_and_the_unknown_passes():
    check_names(['traffic light', 'Road'], ['Traffic_Light', 'road'])
    check_names(None, ['road'])
    check_names(['road'], None)


@pytest.mark.parametrize('student, teacher, how', [
    (['road', 'car'], ['car', 'road'], 'have another order'), (['road', 'car'], ['road', 'bus'], 'are others'),
    (['road', 'car'], ['road'], 'are 1 instead of 2')])
def test_the_message_has_both_lists(student, teacher, how):
    with pytest.raises(ValueError) as raised:
        check_names(student, teacher)
    assert how in str(raised.value) and str(student) in str(raised.value) and str(teacher) in str(raised.value)


def teacher_checkpoint(path, names):
    torch.save(dict(state_dict=build(segmentor(16)).state_dict(), meta=dict(dataset_meta=dict(classes=tuple(names)))),
               path)
    return path


@pytest.mark.parametrize('case', ['swapped', 'others', 'same', 'features', 'switched off'])
def test_at_the_start_of_a_run(mini_cityscapes, tmp_path, case):
    term = dict(loss=dict(type='mmseg_kd.KDLoss' if case != 'features' else 'mmseg_kd.AttentionTransferLoss'))
    if case == 'features':
        term['on'] = 'backbone.layer4'
    names = NAMES if case == 'same' else ['bathtub', *NAMES[1:]] if case == 'others' else SWAPPED
    path = teacher_checkpoint(tmp_path / 'teacher.pth', names)
    config = run_config(distilled(segmentor(), segmentor(16), path, dict(x=term)), mini_cityscapes, max_iters=1,
                        work_dir=str(tmp_path), custom_hooks=HOOK, experiment_name=f'names{case}')
    if case == 'switched off':
        config.update(custom_hooks=[], class_check=False, teacher_check=False)
        add_training_hooks(config)
    runner = Runner.from_cfg(config)
    if case == 'others':
        with pytest.raises(ValueError, match='`teacher`: its classes are others'):
            runner.train()
        assert runner.iter == 0
        return
    runner.train()
    class_map = runner.model.teachers[0].class_map
    if case == 'swapped':
        assert class_map.groups == ((1, ), (0, ), *((index, ) for index in range(2, 19)))
        log = next(tmp_path.glob('*/*.log')).read_text()
        assert "`teacher.class_map`: {'road': ['road'], 'sidewalk': ['sidewalk'], " in log
    else:
        assert class_map is None


def with_teacher(dataset, **teacher):
    model = distilled(segmentor(), segmentor(16))
    model['teacher'] = dict(config=dict(model=model['teacher']['config']['model'],
                                        train_dataloader=dict(dataset=dataset)), **teacher)
    return model


def test_before_anything_is_built():
    """Another number, by the configs alone; behind it the model's own check would know numbers, not names."""
    ade = dict(type='ADE20KDataset')
    with pytest.raises(ValueError, match='`teacher`: its classes are 150 instead of 19.*road.*wall'):
        check_config(Config(dict(CITYSCAPES, default_scope='mmseg', model=with_teacher(ade))))
    swapped = Config(dict(CITYSCAPES, default_scope='mmseg', model=with_teacher(
        dict(type='CityscapesDataset', metainfo=dict(classes=SWAPPED)))))
    check_config(swapped)
    assert swapped.model.teacher.class_map == {name: [name] for name in NAMES}
    several = with_teacher(dict(type='CityscapesDataset'))
    several['teacher'] = [several['teacher'], with_teacher(ade)['teacher']]
    with pytest.raises(ValueError, match='its classes are 150 instead of 19'):
        check_config(Config(dict(CITYSCAPES, default_scope='mmseg', model=several)))
    features = with_teacher(ade)
    features['distill'] = dict(x=dict(loss=dict(type='mmseg_kd.CWDLoss'), on='backbone.layer4'))
    for model, settings in ((features, {}), (with_teacher(ade), dict(class_check=False)), (segmentor(), {}),
                            (with_teacher(dict(type='CityscapesDataset')), {})):
        check_config(Config(dict(CITYSCAPES, default_scope='mmseg', model=copy.deepcopy(model), **settings)))


def test_the_command_line_refuses_it(mini_cityscapes, tmp_path):
    run_config(with_teacher(dict(type='ADE20KDataset')), mini_cityscapes).dump(tmp_path / 'config.py')
    process = command('tools/train.py', tmp_path / 'config.py', '--work-dir', tmp_path, check=False)
    assert process.returncode != 0 and 'its classes are 150 instead of 19' in process.stdout


def test_a_number_that_does_not_fit_names_the_teachers_classes():
    model = distilled(segmentor(num_classes=7), segmentor(16))
    model['teacher']['config']['train_dataloader'] = dict(dataset=dict(type='CityscapesDataset'))
    with pytest.raises(ValueError, match=r"the student has 7, the teacher 19 \(\['road', 'sidewalk'"):
        build(model)
