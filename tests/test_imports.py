"""The house: which room may import which, and what importing the package costs."""
import ast
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import ROOT

PACKAGE = ROOT / 'mmseg_kd'
MAY_IMPORT = {
    'commands': {'datasets', 'distillers', 'engine', 'evaluation', 'teachers'},
    'functional': set(),
    'losses': {'functional'},
    'teachers': {'functional'},
    'distillers': {'functional', 'losses', 'teachers'},
    'engine': {'functional', 'datasets'},
    'datasets': set(),
    'models': set(),
    'safe_load': set(),
    'evaluation': {'distillers', 'export', 'functional'},
    'export': {'teachers'},
    'visualization': {'distillers', 'evaluation', 'functional'},
}
ROOMLESS = {'config', 'config_names', 'mmpretrain_beside_transformers', 'registry', 'safe_load', 'step_loss', 'taps',
            'version'}


def rooms_imported(path: Path) -> set[str]:
    """Names right below mmseg_kd that a file imports."""
    found = set()
    package = path.relative_to(ROOT).with_suffix('').parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name.split('.') for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split('.') if node.module else ()))
            names = [[*module, alias.name] for alias in node.names]
        else:
            continue
        found |= {name[1] for name in names if name[0] == 'mmseg_kd' and len(name) > 1}
    return found


@pytest.mark.parametrize('path', sorted(PACKAGE.rglob('*.py')), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_what_the_design_allows(path):
    room = path.relative_to(PACKAGE).parts[0]
    if room.endswith('.py'):
        # The command line starts what the room of commands has.
        assert not rooms_imported(path) - ROOMLESS - {'functional'} - ({'commands'} if room == '__main__.py' else set())
        return
    assert room in MAY_IMPORT, f'{room} is no room of the house'
    assert rooms_imported(path) - {room} - ROOMLESS <= MAY_IMPORT[room]


def test_the_walk_sees_imports():
    path = ROOT / 'mmseg_kd/distillers/terms.py'
    assert {'registry', 'taps'} <= rooms_imported(path)
    assert {'functional', 'losses'} <= rooms_imported(ROOT / 'mmseg_kd/distillers/compare.py')
    assert 'functional' in rooms_imported(ROOT / 'mmseg_kd/losses/kd.py')


def test_import_is_light_and_silent():
    code = ('import sys, mmseg_kd; '
            'print(sorted({name.split(".")[0] for name in sys.modules} '
            '& {"mmseg", "mmpretrain", "mmdet", "triton", "torchvision"}))')
    process = subprocess.run([sys.executable, '-W', 'error', '-c', code], cwd=ROOT, text=True, capture_output=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == '[]' and process.stderr == ''


def test_what_a_config_names_has_the_same_name_in_python():
    code = ('import sys, mmseg_kd\n'
            'from mmseg_kd import Distiller, DKDLoss\n'
            'print("mmseg" in sys.modules)\n'
            'from mmseg_kd import registry\n'
            'for name in registry.__all__:\n'
            '    each = getattr(registry, name)\n'
            '    if name.isupper():\n'
            '        each.import_from_location()\n'
            '        for key, value in each.module_dict.items():\n'
            '            assert getattr(mmseg_kd, key) is value, key\n'
            'try:\n'
            '    from mmseg_kd import Adam\n'
            'except ImportError as error:\n'
            '    print(error)')
    process = subprocess.run([sys.executable, '-c', code], cwd=ROOT, text=True, capture_output=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith('False\n') and "cannot import name 'Adam' from 'mmseg_kd'" in process.stdout


def test_names_are_found_from_any_scope():
    code = ('from mmengine.registry import DefaultScope, MODELS\n'
            'for scope in ("mmengine", "mmseg", "mmseg_kd"):\n'
            '    with DefaultScope.overwrite_default_scope(scope):\n'
            '        print(type(MODELS.build(dict(type="mmseg_kd.DKDLoss"))).__name__)')
    process = subprocess.run([sys.executable, '-c', code], cwd=ROOT, text=True, capture_output=True)
    assert process.stdout.split().count('DKDLoss') == 3, process.stderr


def test_an_extra_that_is_missing_is_named_and_nothing_else_needs_it():
    code = ('import sys\n'
            'sys.modules["mmpretrain"] = None\n'
            'from mmengine.registry import DATASETS, MODELS\n'
            'print(type(MODELS.build(dict(type="mmseg_kd.CIFARVGG", depth=8))).__name__)\n'
            'for registry, name in ((MODELS, "DistilledImageClassifier"), (DATASETS, "Digits")):\n'
            '    try:\n'
            '        registry.build(dict(type=f"mmseg_kd.{name}"))\n'
            '    except ImportError as error:\n'
            '        print(error)')
    process = subprocess.run([sys.executable, '-c', code], cwd=ROOT, text=True, capture_output=True)
    assert 'CIFARVGG' in process.stdout, process.stderr
    for name in ('DistilledImageClassifier', 'Digits'):
        assert f'mmseg_kd.{name} needs the extra "cls", which does not import' in process.stdout
    assert "pip install 'mmseg_kd[cls]'" in process.stdout


@pytest.mark.parametrize('absent', ['mmdet', 'mmcv._ext'])
def test_a_detector_without_what_it_needs_says_how_to_install_it(absent):
    code = (f'import sys\nsys.modules["{absent}"] = None\n'
            'from mmengine.registry import MODELS\n'
            'for stages in ("SingleStage", "TwoStage"):\n'
            '    try:\n'
            '        MODELS.build(dict(type=f"mmseg_kd.Distilled{stages}Detector"))\n'
            '    except ImportError as error:\n'
            '        print(error)')
    process = subprocess.run([sys.executable, '-c', code], cwd=ROOT, text=True, capture_output=True)
    for stages in ('SingleStage', 'TwoStage'):
        assert f'mmseg_kd.Distilled{stages}Detector needs the extra "det"' in process.stdout, process.stderr
    assert "pip install 'mmseg_kd[det]' and mmcv with compiled operators: bash tools/mmcv_with_ops.sh" in process.stdout


@pytest.mark.cls
@pytest.mark.hf
def test_mmpretrain_imports_beside_transformers_5():
    """As if pycocotools were there as well, when mmpretrain wants its language models."""
    code = ('from importlib import metadata\n'
            'plain = metadata.distribution\n'
            'metadata.distribution = lambda name: plain("torch" if name == "pycocotools" else name)\n'
            'import mmseg_kd, mmpretrain.models\n'
            'print(mmpretrain.models.ImageClassifier.__name__)')
    process = subprocess.run([sys.executable, '-c', code], cwd=ROOT, text=True, capture_output=True)
    assert process.stdout.strip() == 'ImageClassifier', process.stderr
    without = code.replace('import mmseg_kd, ', 'import ')
    assert 'NoneType takes no arguments' in subprocess.run(
        [sys.executable, '-c', without], cwd=ROOT, text=True, capture_output=True).stderr


def test_the_distilled_segmentors_are_found_in_their_room_as_well():
    """Pure-Python configs name the class from there."""
    from mmseg_kd.distillers import DistilledCascadeEncoderDecoder, DistilledEncoderDecoder
    from mmseg_kd.registry import MODELS
    assert MODELS.get('DistilledEncoderDecoder') is DistilledEncoderDecoder
    assert MODELS.get('DistilledCascadeEncoderDecoder') is DistilledCascadeEncoderDecoder
