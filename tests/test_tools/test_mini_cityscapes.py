"""The generator through its command line."""
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / 'tools' / 'dataset_converters' / 'mini_cityscapes.py'


def run(*args):
    return subprocess.run([sys.executable, str(TOOL), *map(str, args)], capture_output=True, text=True, timeout=120)


def test_generates_and_refuses(tmp_path):
    out = tmp_path / 'mini'
    done = run(out, '--num-train', 3, '--num-val', 2, '--size', 32, 64, '--seed', 1, '--workers', 2, '--coco')
    assert done.returncode == 0, done.stderr
    assert '3 train, 2 val, 0 test pictures of 32x64' in done.stdout
    assert len(list(out.glob('leftImg8bit/*/*/*.png'))) == 5
    assert {path.name for path in (out / 'annotations').iterdir()} == {'instances_train.json', 'instances_val.json'}

    refused = run(out, '--num-train', 4, '--num-val', 2, '--size', 32, 64)
    assert refused.returncode == 1
    assert refused.stderr.startswith('error: out_dir') and 'other settings' in refused.stderr
    assert 'Traceback' not in refused.stderr
