"""Let PyPI's torchvision, built for CUDA, import beside a torch without CUDA.

torchvision's compiled library does not load there, and its import then ends with "operator torchvision::nms does not
exist". mmpretrain needs torchvision's image transforms, which are plain Python, and none of the compiled operators.
Run with the interpreter of an environment, this file installs itself there, unless torchvision imports already: when
torchvision is imported, the two operators that it describes are declared first, without code behind them; calling one
is an error, as it should be. The clean way is a torchvision of the same build as torch; this is for test environments.

    .venv/bin/python tools/torchvision_beside_cpu_torch.py
"""
import shutil
import subprocess
import sys
import sysconfig
from importlib.abc import MetaPathFinder
from pathlib import Path

_OPERATORS = ('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
              'qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')


class DeclareOperators(MetaPathFinder):
    """Declares torchvision's operators just before torchvision is imported; finds nothing itself."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname == 'torchvision':
            sys.meta_path.remove(self)
            import torch
            # A library undeclares its operators when it is collected.
            self.library = torch.library.Library('torchvision', 'DEF')
            for operator in _OPERATORS:
                self.library.define(operator)
            sys.modules[__name__].declared = self
        return None


def imports() -> str:
    """What importing torchvision in a new process says; empty if it works."""
    process = subprocess.run([sys.executable, '-c', 'import torchvision'], text=True, capture_output=True)
    return '' if process.returncode == 0 else process.stderr.strip().splitlines()[-1]


def main() -> None:
    """Install this file as a start-up module of the running interpreter's environment, if it is needed."""
    error = imports()
    if not error:
        return
    if 'torchvision::nms' not in error:
        raise SystemExit(f'torchvision does not import: {error}')
    site, name = Path(sysconfig.get_paths()['purelib']), Path(__file__).stem
    shutil.copy(__file__, site / f'{name}.py')
    (site / f'{name}.pth').write_text(f'import {name}; {name}.start()\n')
    error = imports()
    if error:
        raise SystemExit(f'torchvision does not import, with its operators declared: {error}')
    print('torchvision was built for another torch: its two operators are declared, without code behind them')


def start() -> None:
    """Watch for the import of torchvision; a second call, as from an environment on top of another, adds nothing."""
    if not any(isinstance(finder, DeclareOperators) for finder in sys.meta_path):
        sys.meta_path.insert(0, DeclareOperators())


if __name__ == '__main__':
    main()
