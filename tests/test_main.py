"""`python -m mmseg_kd TOOL`, and the names 'mmseg_kd::...' of the package's configs."""
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config
from mmengine.hub import get_config
from tiny import ROOT, command

from mmseg_kd.__main__ import TOOLS, find_tool

STUDENT = 'demo/kd_pspnet-r18-w32-d8_fcn-r18-w16-d8_mini-cityscapes-64x128.py'


def test_a_tool_runs_from_anywhere_with_its_arguments():
    output = command('-m', 'mmseg_kd', 'analysis/compare', '--help').stdout
    assert 'usage: compare.py' in output and '--baseline' in output


def test_what_is_no_tool_is_refused_with_the_names_of_all():
    for name in ('fly', '../setup', '../../etc/passwd'):
        with pytest.raises(ValueError, match='`TOOL`: there is no tool .* analysis/compare, .* train'):
            find_tool(name)
    # Modules of tools that cannot be started are none.
    process = command('-m', 'mmseg_kd', check=False)
    assert process.returncode == 2 and 'export_student' in process.stdout and 'report_models' not in process.stdout


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
