"""Run a tool of the package from anywhere: ``python -m mmseg_kd TOOL [arguments]``."""
import runpy
import sys
from pathlib import Path

__all__ = ['find_tool', 'main']

TOOLS = Path(__file__).with_name('.mim') / 'tools'


def find_tool(name: str) -> Path:
    """The script of a tool: ``'train'``, ``'analysis/compare'``.

    Raises:
        ValueError: there is no such tool; the message has all names.
    """
    path = TOOLS / f'{name.removesuffix(".py")}.py'
    if '..' in Path(name).parts or not path.is_file():
        raise ValueError(f'`TOOL`: there is no tool {name!r}; there are: {", ".join(tool_names())}.')
    return path


def tool_names() -> list[str]:
    """All tools: the scripts that can be started."""
    return sorted(path.relative_to(TOOLS).with_suffix('').as_posix() for path in TOOLS.glob('**/*.py')
                  if "if __name__ == '__main__':" in path.read_text(encoding='utf-8'))


def main() -> None:
    """Run the tool that the first argument names with the others as its own."""
    if len(sys.argv) < 2 or sys.argv[1] in ('-h', '--help'):
        print('usage: python -m mmseg_kd TOOL [arguments of the tool]\n\n' + '\n'.join(tool_names()))
        sys.exit(0 if len(sys.argv) > 1 else 2)
    path = find_tool(sys.argv[1])
    sys.argv = [str(path), *sys.argv[2:]]
    # As for a script: what lies beside it can be imported.
    sys.path.insert(0, str(path.parent))
    runpy.run_path(str(path), run_name='__main__')


if __name__ == '__main__':
    main()
