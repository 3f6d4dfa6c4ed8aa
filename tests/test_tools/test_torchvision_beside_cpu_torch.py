"""The test environment's help for a torchvision of another build, on a stand-in that fails as torchvision does."""
import subprocess
import sys

from tiny import ROOT

# What torchvision does at import: describe an operator that its compiled library, which did not load, would have.
STAND_IN = '''import torch
torch.library.register_fake('torchvision::nms')(lambda boxes, scores, threshold: scores)
'''


def run(code, tmp_path):
    (tmp_path / 'torchvision').mkdir(exist_ok=True)
    (tmp_path / 'torchvision/__init__.py').write_text(STAND_IN)
    return subprocess.run([sys.executable, '-c', code], cwd=tmp_path, text=True, capture_output=True,
                          env={'PYTHONPATH': f'{tmp_path}:{ROOT / "tools"}'})


def test_its_operators_are_declared_and_have_no_code(tmp_path):
    # As if the environment of the tests had no such help installed itself.
    process = run('import sys\n'
                  'sys.meta_path[:] = [each for each in sys.meta_path if type(each).__name__ != "DeclareOperators"]\n'
                  'import torchvision', tmp_path)
    assert 'operator torchvision::nms does not exist' in process.stderr
    process = run('import torchvision_beside_cpu_torch, sys\n'
                  'sys.meta_path[:] = [each for each in sys.meta_path if type(each).__name__ != "DeclareOperators"]\n'
                  'torchvision_beside_cpu_torch.start()\n'
                  'print("torch" in sys.modules)\n'
                  'import torchvision, torch\n'
                  'try:\n'
                  '    torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)\n'
                  'except NotImplementedError:\n'
                  '    print("no code")', tmp_path)
    # Starting up is light: torch is not imported before torchvision is.
    assert process.stdout.split('\n')[:2] == ['False', 'no code'], process.stderr


def test_a_second_start_and_a_look_before_the_import_change_nothing(tmp_path):
    process = run('import importlib.util, sys, torchvision_beside_cpu_torch as help\n'
                  'sys.meta_path[:] = [each for each in sys.meta_path if type(each).__name__ != "DeclareOperators"]\n'
                  'help.start()\nhelp.start()\n'
                  'importlib.util.find_spec("torchvision")\n'
                  'import torchvision\nprint("imports")', tmp_path)
    assert process.stdout.split() == ['imports'], process.stderr
