"""tools/compatibility.sh, with a stub in the place of the environment's Python that notes what it is asked for."""
import os
import subprocess

import pytest
from tiny import ROOT


@pytest.fixture
def typed(tmp_path):
    """Run the script on a folder whose Python is the stub; its commands, one list of words each."""
    note, python = tmp_path / 'typed.txt', tmp_path / 'venv/bin/python'
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "${{MMCV_WITH_OPS:+ops }}$*" >> {note}\n')
    python.chmod(0o755)

    def run(*arguments):
        subprocess.run(['bash', str(ROOT / 'tools/compatibility.sh'), 'venv', *arguments], cwd=tmp_path, check=True,
                       env={key: value for key, value in os.environ.items() if key != 'MMCV_WITH_OPS'})
        return [line.split() for line in note.read_text().splitlines()]
    return run


def test_another_torch_beside_the_maintained_distributions(typed):
    *installs, versions, tests = typed('torch==2.4.0')
    assert all(words[:4] == ['-m', 'pip', 'install', '-q'] for words in installs)
    wanted = [word for words in installs for word in words[4:]]
    pinned = [line for line in (ROOT / 'constraints.txt').read_text().splitlines() if line.startswith('onedl-mm')]
    assert 'torch==2.4.0' in wanted and {name for name in wanted if name.startswith('onedl')} == {
        line for line in pinned if 'pretrain' not in line and 'detection' not in line}
    assert tests[:3] == ['-m', 'pytest', '-q'] and tests[-1] == 'tests'


def test_the_original_distributions_with_compiled_mmcv(typed):
    commands = typed('torch==2.13.0', 'mmengine==0.10.7', 'mmsegmentation==1.2.2', 'mmcv==2.1.0',
                     '--', 'tests/a.py', '-x')
    # Last of all installs, compiled with what the others brought.
    *_, before, build, _, tests = commands
    assert before[-1] == 'setuptools<80'
    assert build == ['ops', '-m', 'pip', 'install', '-q', '--no-build-isolation', '--no-deps', 'mmcv==2.1.0']
    assert not any(word.startswith('onedl') or word == 'mmcv==2.1.0' for words in commands[:-3] for word in words)
    assert tests[-2:] == ['tests/a.py', '-x']


def test_how_it_is_used():
    process = subprocess.run(['bash', str(ROOT / 'tools/compatibility.sh')], text=True, capture_output=True)
    assert process.returncode == 2 and 'bash tools/compatibility.sh FOLDER REQUIREMENT' in process.stderr
