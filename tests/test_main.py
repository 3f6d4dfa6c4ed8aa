"""`mmseg-kd COMMAND`, also `python -m mmseg_kd COMMAND`, and the names 'mmseg_kd::...' of the package's configs."""
import configparser
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config
from mmengine.hub import get_config
from tiny import ROOT, command

from mmseg_kd.__main__ import COMMANDS, TOOLS, find_tool

STUDENT = 'demo/kd_pspnet-r18-w32-d8_fcn-r18-w16-d8_mini-cityscapes-64x128.py'


def test_a_command_runs_from_anywhere_with_its_arguments():
    for name, shown in (('compare', 'mmseg-kd compare'), ('analysis/compare', 'compare.py')):
        output = command('-m', 'mmseg_kd', name, '--help').stdout
        assert f'usage: {shown}' in output and '--baseline' in output
    # What a user can mend is said in one line, without the way to it through the code.
    process = command('-m', 'mmseg_kd', 'compare', 'a=nothing', check=False)
    started, *said = process.stdout.splitlines()
    assert started == 'mmseg-kd compare: loading torch ...'
    assert process.returncode == 1 and len(said) == 1 and said[0].startswith('ValueError: `work_dir`')


def test_a_typo_names_the_nearest_command():
    for typed, meant in (('tran', 'train'), ('distill', 'distil'), ('chek-data', 'check-data'), ('reprot', 'report')):
        with pytest.raises(ValueError, match=f'`COMMAND`: there is no command {typed!r}; did you mean .*{meant}'):
            find_tool(typed)
    for name in ('fly', '../setup', '../../etc/passwd'):
        with pytest.raises(ValueError, match='`COMMAND`: there is no command .* mmseg-kd --help'):
            find_tool(name)


def test_the_commands_are_listed_by_what_people_do():
    process = command('-m', 'mmseg_kd', check=False)
    assert process.returncode == 2
    lines = [line.split(maxsplit=1) for line in process.stdout.splitlines() if line.startswith('  ')]
    assert [line[0] for line in lines] == list(COMMANDS) and all(len(line) == 2 for line in lines)
    wanted = {'distil', 'train', 'test', 'report', 'compare', 'export', 'cache', 'check-data', 'benchmarks'}
    assert wanted <= set(COMMANDS)


def test_help_of_every_command_needs_neither_torch_nor_mmseg():
    code = ('import sys\n'
            'from mmseg_kd.__main__ import COMMANDS, run_tool\n'
            'for name, (script, _) in COMMANDS.items():\n'
            '    if script:\n'
            '        try:\n'
            '            run_tool(name, ["--help"])\n'
            '        except SystemExit as stop:\n'
            '            assert stop.code in (0, None), name\n'
            'print({"torch", "mmseg", "mmcv"} & set(sys.modules))')
    output = command('-W', 'error', '-c', code).stdout
    assert output.count('usage: mmseg-kd ') == len(COMMANDS) - 1 and output.splitlines()[-1] == 'set()'


def test_the_console_script_is_this_command():
    parser = configparser.ConfigParser()
    parser.read(ROOT / 'setup.cfg')
    assert parser['options.entry_points']['console_scripts'].split() == ['mmseg-kd', '=', 'mmseg_kd.__main__:main']


def test_the_layout_of_mim_is_that_of_the_checkout():
    assert TOOLS.resolve() == ROOT / 'tools'
    assert (TOOLS.parent / 'configs').resolve() == ROOT / 'configs'
    index = yaml.safe_load((TOOLS.parent / 'model-index.yml').read_text())
    assert sorted(index['Import']) == sorted(
        str(path.relative_to(ROOT)) for path in (ROOT / 'configs').glob('**/metafile.yml'))


def test_configs_have_names_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = Config.fromfile(ROOT / 'configs' / STUDENT)
    assert get_config(f'mmseg_kd::{STUDENT}').to_dict() == expected.to_dict()
    Path('mine.py').write_text(f"_base_ = ['mmseg_kd::{STUDENT}']\nmodel = dict(teacher=dict(checkpoint='mine.pth'))\n")
    mine = Config.fromfile('mine.py')
    assert mine.model.teacher.checkpoint == 'mine.pth'
    # As if named by its path: mmengine would mark it to be built where mmseg's classes are unknown.
    expected.model.teacher.checkpoint = 'mine.pth'
    assert mine.to_dict() == expected.to_dict() and "'_scope_': 'mmseg_kd'" not in str(mine.to_dict())
    # The teacher's config is found wherever the work is done.
    assert get_config(mine.model.teacher.config).model.decode_head.type == 'PSPHead'


@pytest.mark.parametrize('path', sorted((ROOT / 'configs').rglob('*.py')), ids=lambda path: path.stem)
def test_no_config_names_another_by_a_path_of_the_checkout(path):
    assert 'configs/' not in path.read_text().replace('its configs/', '')
