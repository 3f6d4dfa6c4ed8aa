"""Pages of the API reference: for each room, a table of its public names and their docstrings."""
import ast
import re
from importlib.util import find_spec
from pathlib import Path

from .generated import write
from .links import ROOT

__all__ = ['missing_packages', 'public_names', 'setup', 'write_reference_pages']

#: Page: (title, what it is for, the modules whose public names it has).
PAGES = {
    'losses': (
        'Losses', "A config names them: `loss=dict(type='mmseg_kd.KDLoss', ...)`. Each is a module around a "
        '[formula](functional.md), which documents its settings.', ['mmseg_kd.losses']),
    'functional': (
        'Formulas', 'The losses as plain functions of tensors. They need only torch.', ['mmseg_kd.functional']),
    'distillers': (
        'Distilled models', 'A distilled model is its student. It has a teacher while it trains.',
        ['mmseg_kd.distillers', 'mmseg_kd.distillers.classification', 'mmseg_kd.distillers.detection']),
    'teachers': ('Teachers', 'Whatever a student learns from.', ['mmseg_kd.teachers']),
    'engine': (
        'Hooks and optimizer wrappers', '`tools/train.py` adds the hooks to every run; each can be used elsewhere.',
        ['mmseg_kd.engine']),
    'datasets': ('Data', 'Data sets, their checks, and the generator of mini-Cityscapes.', ['mmseg_kd.datasets']),
    'models': ('Networks', 'Backbones of the distillation papers that no OpenMMLab library has.', ['mmseg_kd.models']),
    'evaluation': ('Evaluation', 'What a run left, and metrics.', ['mmseg_kd.evaluation.*']),
    'visualization': ('Visualization', 'Figures, pictures and pages.', ['mmseg_kd.visualization.*']),
    'export': ('Export', 'The trained student, for machines without this package.', ['mmseg_kd.export'])}
#: Optional packages. Where one is not installed, the reference is built without it.
OPTIONAL = ('mmdet', 'mmpretrain', 'torchvision', 'sklearn', 'pycocotools', 'triton', 'onnx', 'onnxruntime',
            'transformers', 'timm')
#: A loss's own function is the formula that the next page documents.
NOT_SHOWN = {'losses': 'function'}


def missing_packages() -> list[str]:
    """Optional packages that are not installed."""
    return [name for name in OPTIONAL if find_spec(name) is None]


def module_file(module: str) -> Path:
    path = ROOT.joinpath(*module.split('.'))
    return path / '__init__.py' if path.is_dir() else path.with_suffix('.py')


def modules(patterns: list[str]) -> list[str]:
    """The modules of a page: ``'room.*'`` is every file of a room."""
    found = []
    for pattern in patterns:
        if pattern.endswith('.*'):
            room = pattern[:-2]
            files = sorted(module_file(room).parent.glob('*.py'))
            found += [f'{room}.{path.stem}' for path in files if path.stem[0] != '_']
        else:
            found.append(pattern)
    return [module for module in found if public_names(module)]


def public_names(module: str) -> list[str]:
    """``__all__`` of a module, read without importing it."""
    for node in ast.parse(module_file(module).read_text(encoding='utf-8')).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '__all__':
            return ast.literal_eval(node.value)
    return []


def write_reference_pages(folder: Path) -> None:
    """Write a page for each room, and their table of contents."""
    for page, (title, text, patterns) in PAGES.items():
        lines = [f'# {title}', '', text, '']
        for module in modules(patterns):
            names = public_names(module)
            if len(modules(patterns)) > 1:
                lines += [f'## {module}', '']
            lines += ['```{eval-rst}', f'.. currentmodule:: {module}', '', '.. autosummary::', '   :nosignatures:', '',
                      *(f'   {name}' for name in names), '', f'.. automodule:: {module}', '   :members:',
                      '   :show-inheritance:', f'   :exclude-members: {NOT_SHOWN.get(page, "")}', '```', '']
        write(folder / f'{page}.md', '\n'.join(lines))
    write(folder / 'index.md', '\n'.join([
        '# Reference', '', 'Made from the docstrings, which say shapes, domains (logits, log-probabilities, '
        'probabilities) and errors.', '', '```{toctree}', ':maxdepth: 1', '', *PAGES, '```', '']))


def as_rst(app, what, name, obj, options, lines: list[str]) -> None:
    """Sphinx's ``autodoc-process-docstring``: a star alone is a shape's "any number", as in (N, C, *), no emphasis."""
    literal = None  # indentation that a literal block has to exceed
    for index, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if literal is not None and line.strip() and indent <= literal:
            literal = None
        if literal is None and not line.lstrip().startswith('>>>'):
            parts = re.split(r'(``.*?``)', line)
            lines[index] = ''.join(part if part.startswith('``') else re.sub(r'(?<=[\s(])\*(?=[\s),.])', r'\*', part)
                                   for part in parts)
            if line.rstrip().endswith('::'):
                literal = indent


def setup(app) -> None:
    # Before napoleon, which would read the stars of arguments' descriptions.
    app.connect('autodoc-process-docstring', as_rst, priority=400)
