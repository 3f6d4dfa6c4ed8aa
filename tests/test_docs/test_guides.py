"""The guides do what they say: their files are saved, their commands typed, their output compared, top to bottom.

A training runs for two iterations and its checkpoint is then found under the name that it would have had.
"""
import doctest

import pytest
from documents import Command, File, shown, steps
from tiny import ROOT

from mmseg_kd.__main__ import COMMANDS
from mmseg_kd.datasets import generate_mini_cityscapes

DOCS = ROOT / 'docs'
NO_WORKERS = ['train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
              'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False']
#: Options with which two iterations of a training say as much as all; the rest of a run is as the guide types it.
ON_CPU = [
    'model.pretrained=None', 'model.data_preprocessor.size=(64,64)', 'model.backbone.norm_cfg.type=BN',
    'model.decode_head.norm_cfg.type=BN', 'model.auxiliary_head.norm_cfg.type=BN',
    'train_dataloader.dataset.data_root=data/mini_cityscapes', 'train_dataloader.dataset.pipeline.2.scale=(128,64)',
    'train_dataloader.dataset.pipeline.3.crop_size=(64,64)', 'val_dataloader.dataset.data_root=data/mini_cityscapes',
    'val_dataloader.dataset.pipeline.1.scale=(128,64)', *NO_WORKERS]
UNTRAINED = ['teacher_check=False']
#: What is cut to size: words of a guide's command to those that the test types.
SMALLER = {'--num-train 128 --num-val 100 --workers 2': '--num-train 12 --num-val 4',
           '--num-train 256 --num-val 4 --seed 1 --workers 2': '--num-train 8 --num-val 1 --seed 1'}
#: Guide: config to options of its trainings; '' is every config that is not named.
GUIDES = {
    'getting_started.md': {'': UNTRAINED, 'my_pspnet_r18.py': UNTRAINED + ON_CPU},
    'own_data.md': {'': UNTRAINED + NO_WORKERS},
    'unlabelled.md': {'': UNTRAINED},
    'teachers.md': {'': UNTRAINED},
    'adding_a_loss.md': {'': UNTRAINED},
    'migrating.md': {'my_cwd.py': UNTRAINED + ON_CPU},
    'troubleshooting.md': {'': []},
}
#: Guides that need an extra.
NEEDS = {'teachers.md': pytest.mark.hf}


@pytest.fixture(scope='module')
def folder(tmp_path_factory, python):
    """A checkout as a reader has it, with data where the guides look for them, and a published teacher."""
    folder = tmp_path_factory.mktemp('checkout')
    for name in ('tools', 'configs'):
        (folder / name).symlink_to(ROOT / name)
    (folder / 'teacher.py').write_text(
        'import torch\nfrom mmengine.hub import get_config\nfrom mmseg.registry import MODELS\n'
        "config = get_config('mmseg::pspnet/pspnet_r101-d8_4xb2-80k_cityscapes-512x1024.py').model\n"
        "config.update(_scope_='mmseg', pretrained=None)\n"
        "torch.save(dict(state_dict=MODELS.build(config).state_dict()), 'checkpoints/pspnet_r101.pth')\n")
    (folder / 'checkpoints').mkdir()
    generate_mini_cityscapes(folder / 'data/mini_cityscapes', num_train=12, num_val=4, size=(64, 128), seed=0)
    code, printed = python.run(['teacher.py'], folder)
    assert code == 0, printed
    return folder


def typed(command: Command) -> list[str]:
    """The words of a command as the test types them."""
    words = command.words[1:]
    if command.words[0] == 'mmseg-kd':  # the installed command; here its script
        words = [f'tools/{COMMANDS[words[0]][0]}.py', *words[1:]]
    line = ' '.join(words)
    for words, smaller in SMALLER.items():
        line = line.replace(words, smaller)
    return line.split()


@pytest.mark.parametrize('name', [pytest.param(name, marks=NEEDS.get(name, ())) for name in GUIDES])
def test_guide(name, python, folder):
    """Every command ends as the guide says, and prints what it shows."""
    checked = 0
    for step in steps(DOCS / name):
        if isinstance(step, File):
            (folder / step.name).write_text(step.text)
            continue
        assert step.words[0] in ('python', 'mmseg-kd'), f'{step}: not known to this test'
        argv = typed(step)
        options = GUIDES[name].get(argv[1] if len(argv) > 1 else '', GUIDES[name].get('', []))
        code, printed = python.run(argv, folder, step.environment, options)
        refused = any('Error: ' in line for line in step.expected)
        assert (code != 0) == refused, f'{step}\n{printed[-3000:]}'
        for line in step.expected:
            assert shown(line, printed), f'{step}: {line!r} is not in\n{printed[-3000:]}'
        checked += 1
    assert checked == len([step for step in steps(DOCS / name) if isinstance(step, Command)]) > 0


@pytest.mark.parametrize('name', ['mathematics.md', 'migrating.md'])
def test_examples(name):
    result = doctest.testfile(str(DOCS / name), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0 and result.attempted > 5
