"""The distributions: what is in them, and that the wheel alone is enough."""
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from tiny import ROOT

import mmseg_kd

pytestmark = pytest.mark.release
#: Nothing of these belongs in a distribution.
FOREIGN = ('__pycache__', '.pyc', '.nbi', '.nbc', 'work_dirs', '.venv', '.git/', 'data/', 'checkpoints/', '.pth')


def run(*arguments, cwd, **environment):
    """Run a command without the checkout on any path; its output."""
    clean = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    process = subprocess.run([*map(str, arguments)], cwd=cwd, text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, env=clean | environment)
    assert process.returncode == 0, process.stdout[-4000:]
    return process.stdout


@pytest.fixture(scope='module')
def distributions(tmp_path_factory):
    """(sdist, the wheel made from it, the wheel made from the checkout)."""
    folder = tmp_path_factory.mktemp('dist')
    # A copy: setuptools leaves its work in the tree that it builds.
    tree = folder / 'checkout'
    beside = shutil.ignore_patterns('.git', '.venv*', 'data', 'work_dirs', 'build', 'dist', '*.egg-info', '.*_cache')
    shutil.copytree(ROOT, tree, symlinks=True,
                    ignore=lambda parent, names: beside(parent, names) if Path(parent) == ROOT else ())
    # What a used checkout has lying about.
    for name in ('work_dirs/run/iter_1.pth', 'configs/work_dirs/x.pth', 'mmseg_kd/functional/__pycache__/a.nbi',
                 'tools/__pycache__/train.cpython-311.pyc', 'tests/data/a.png'):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text('left over')
    run(sys.executable, '-m', 'build', '--outdir', folder / 'both', tree, cwd=folder)
    run(sys.executable, '-m', 'build', '--wheel', '--outdir', folder / 'wheel', tree, cwd=folder)
    return next((folder / 'both').glob('*.tar.gz')), next((folder / 'both').glob('*.whl')), next(
        (folder / 'wheel').glob('*.whl'))


def contents(wheel):
    """File name to bytes; RECORD and WHEEL are the builder's."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()
                if not name.endswith(('/RECORD', '/WHEEL', '/'))}


def test_the_wheel_has_package_configs_and_tools_and_nothing_else(distributions):
    _, wheel, _ = distributions
    files = contents(wheel)
    for folder, pattern in (('configs', '*.py'), ('configs', '*.yml'), ('tools', '*.py'), ('tools', '*_train.sh')):
        for path in (ROOT / folder).rglob(pattern):
            assert files[f'mmseg_kd/.mim/{path.relative_to(ROOT).as_posix()}'] == path.read_bytes()
    for path in (ROOT / 'mmseg_kd').rglob('*.py'):
        assert files[path.relative_to(ROOT).as_posix()] == path.read_bytes()
    assert 'mmseg_kd/.mim/model-index.yml' in files
    assert {name.split('/')[0] for name in files} == {'mmseg_kd', f'mmseg_kd-{mmseg_kd.__version__}.dist-info'}
    assert not [name for name in files if any(word in name for word in FOREIGN) or 'test_' in name]
    # No script of the checkout's own environment.
    assert 'mmseg_kd/.mim/tools/quickstart.sh' not in files


def test_a_wheel_from_the_sdist_is_the_wheel_from_the_checkout(distributions):
    sdist, wheel, direct = distributions
    assert contents(wheel) == contents(direct)
    with tarfile.open(sdist) as archive:
        names = [name.split('/', 1)[1] for name in archive.getnames() if '/' in name]
    assert not [name for name in names if any(word in name for word in FOREIGN)]
    for wanted in ('README.md', 'LICENSE', 'CHANGELOG.md', 'constraints.txt', 'tests/tiny.py', 'tools/test.sh',
                   'configs/_base_/default_runtime.py', 'docs/losses.md'):
        assert wanted in names


@pytest.fixture(scope='module')
def python(distributions, tmp_path_factory):
    """An interpreter that has the wheel, and what this one has installed, but not the checkout."""
    folder = tmp_path_factory.mktemp('venv')
    run(sys.executable, '-m', 'venv', '--without-pip', folder, cwd=folder)
    python = folder / 'bin/python'
    site = Path(run(python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))', cwd=folder).strip())
    # Links of an editable install are not followed from here.
    paths = [sysconfig.get_path('purelib'), *(path for path in sys.path if path.endswith('site-packages'))]
    (site / 'dependencies.pth').write_text('\n'.join(dict.fromkeys(paths)))
    # Nor is what starts with the interpreter (tools/torchvision_beside_cpu_torch.py).
    for start in Path(paths[0]).glob('torchvision_beside_cpu_torch.pth'):
        (site / start.name).write_text(start.read_text())
    run(sys.executable, '-m', 'pip', '--python', python, 'install', '--no-deps', '--no-index', distributions[1],
        cwd=folder)
    return python


def test_a_demo_runs_from_the_wheel_alone(python, tmp_path):
    where = run(python, '-c', 'import mmseg_kd; print(mmseg_kd.__file__, mmseg_kd.__version__)', cwd=tmp_path)
    assert str(ROOT) not in where and str(python.parents[1]) in where and mmseg_kd.__version__ in where
    run(python, '-m', 'mmseg_kd', 'dataset_converters/mini_cityscapes', 'data/mini_cityscapes', '--num-train', '8',
        '--num-val', '4', '--size', '64', '128', cwd=tmp_path)
    short = ['--cfg-options', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2',
             'default_hooks.checkpoint.interval=2']
    teacher = 'pspnet_r18-w32-d8_mini-cityscapes-64x128'
    run(python, '-m', 'mmseg_kd', 'train', f'mmseg_kd::demo/{teacher}.py', *short, cwd=tmp_path)
    (tmp_path / 'mine.py').write_text(
        "_base_ = ['mmseg_kd::demo/dkd_pspnet-r18-w32-d8_fcn-r18-w16-d8_mini-cityscapes-64x128.py']\n"
        f"model = dict(teacher=dict(checkpoint='work_dirs/{teacher}/iter_2.pth'))\n")
    output = run(python, '-m', 'mmseg_kd', 'train', 'mine.py', *short, 'teacher_check=False', cwd=tmp_path)
    assert 'distill.loss_dkd' in output and 'mIoU' in output
    assert (tmp_path / 'work_dirs/mine/iter_2.pth').is_file()
