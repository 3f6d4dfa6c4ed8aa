"""The command ``mmseg-kd COMMAND [arguments]``, also ``python -m mmseg_kd COMMAND [arguments]``."""
import __future__

import ast
import contextlib
import difflib
import os
import sys
from pathlib import Path
from types import ModuleType

from .commands.terminal import short_errors
from .version import __version__

__all__ = ['COMMANDS', 'find_tool', 'main', 'run_tool', 'tool_names']

TOOLS = Path(__file__).with_name('.mim') / 'tools'
#: What is imported in no time.
LIGHT = {'argparse', 'os', 'os.path', 'pathlib', 'sys', 'mmengine.config', 'mmseg_kd.commands',
         'mmseg_kd.commands.arguments'}
#: What people do: the command, its script below tools/, and one line about it.
COMMANDS = {
    'distil': ('distil', 'write a config for a student, a teacher and a method, and train it'),
    'train': ('train', 'train a config, distilled or plain'),
    'test': ('test', 'score a checkpoint, paint or write its predictions'),
    'report': ('analysis/report', 'one page about finished runs: curves, classes, pictures, calibration'),
    'compare': ('analysis/compare', 'a table of finished runs: scores over seeds, gains, cost'),
    'draw': ('analysis/draw_predictions', 'a picture of what several runs predict'),
    'export': ('export_student', 'the trained student for other machines, also as ONNX'),
    'cache': ('cache_teacher', "compute a teacher's logits once, for all later trainings"),
    'check-data': ('check_dataset', 'read every file of a data set before training'),
    'make-data': ('dataset_converters/mini_cityscapes', 'generate mini-Cityscapes, street scenes to try things on'),
    'measure-topk': ('analysis/measure_topk', 'how many classes a teacher takes seriously: k per class for GDKD'),
    'neural-collapse': ('analysis/neural_collapse', 'how far features and classifier of runs have collapsed'),
    'benchmarks': (None, 'list what measures speed and memory, or run one: mmseg-kd benchmarks NAME')}


def find_tool(name: str) -> Path:
    """The script of a command or tool: ``'train'``, ``'compare'``, ``'analysis/compare'``.

    Raises:
        ValueError: there is no such command; the message has the nearest ones.
    """
    path = TOOLS / f'{(COMMANDS.get(name, (name,))[0] or name).removesuffix(".py")}.py'
    if '..' in Path(name).parts or not path.is_file():
        known = {*COMMANDS, *tool_names()}
        near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
        meant = f'did you mean {" or ".join(near)}?' if near else f'expected one of {", ".join(COMMANDS)}.'
        raise ValueError(f'`COMMAND`: there is no command {name!r}; {meant} All of them: mmseg-kd --help')
    return path


def tool_names(folder: str = '') -> list[str]:
    """All scripts below tools/, or below one of its folders, that can be started."""
    return sorted(path.relative_to(TOOLS).with_suffix('').as_posix() for path in (TOOLS / folder).glob('**/*.py')
                  if "if __name__ == '__main__':" in path.read_text(encoding='utf-8'))


def run_tool(name: str, arguments: list[str]) -> None:
    """Run a command as if it had been typed."""
    path = find_tool(name)
    sys.argv = [f'mmseg-kd {name}' if name in COMMANDS else str(path), *arguments]
    source = path.read_text(encoding='utf-8')
    if any(word in ('-h', '--help') for word in arguments):
        _answer_help(source)
    elif name in COMMANDS and 'torch' not in sys.modules and os.environ.get('RANK', '0') == '0':
        print(f'mmseg-kd {name}: loading torch ...', file=sys.stderr, flush=True)
    # As for a script: what lies beside it can be imported, and worker processes find its functions.
    sys.path.insert(0, str(path.parent))
    main_module = ModuleType('__main__')
    main_module.__file__ = str(path)
    sys.modules['__main__'] = main_module
    exec(compile(source, str(path), 'exec'), main_module.__dict__)


def _answer_help(source: str) -> None:
    """Let a script's own ``parse_args`` answer ``--help`` without what only its work needs: torch and mmseg.

    Where ``parse_args`` wants more than :data:`LIGHT` modules, nothing happens, and the whole script will answer.
    """
    tree = ast.parse(source)
    light = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.Assign)) or (
        isinstance(node, ast.Import) and {alias.name for alias in node.names} <= LIGHT) or (
        isinstance(node, ast.ImportFrom) and node.module in LIGHT)]
    names = dict(__name__='help', __doc__=ast.get_docstring(tree, clean=False))
    for node in light:
        with contextlib.suppress(NameError):  # of what was not imported
            exec(compile(ast.Module([node], []), 'help', 'exec', __future__.annotations.compiler_flag), names)
    with contextlib.suppress(KeyError, NameError):
        names['parse_args']()


def usage() -> str:
    """The commands, a line each."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f'  {name:{width}}{text}' for name, (_, text) in COMMANDS.items()]
    return '\n'.join(['usage: mmseg-kd COMMAND [arguments]', '', *lines, '',
                      'mmseg-kd COMMAND --help says what a command takes.'])


def main() -> None:
    """Run the command that the first argument names with the others as its own."""
    name, arguments = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ('', [])
    if name in ('', '-h', '--help'):
        print(usage())
        sys.exit(0 if name else 2)
    if name == '--version':
        print(__version__)
        sys.exit(0)
    if name == 'benchmarks':
        there = [tool.removeprefix('benchmarks/') for tool in tool_names('benchmarks')]
        if not arguments or arguments[0] in ('-h', '--help'):
            print('usage: mmseg-kd benchmarks NAME [arguments]\n\n' + '\n'.join(f'  {tool}' for tool in there))
            sys.exit(0 if arguments else 2)
        name, arguments = f'benchmarks/{arguments[0]}', arguments[1:]
    try:
        find_tool(name)
    except ValueError as error:
        sys.exit(f'mmseg-kd: {error}')
    short_errors()
    run_tool(name, arguments)


if __name__ == '__main__':
    main()
