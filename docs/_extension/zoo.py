"""Pages of the config zoo: tables made from the names of the configs and from the parts that they include."""
import ast
import re
from pathlib import Path

from .generated import write
from .links import ROOT

__all__ = ['write_zoo_pages']

CONFIGS = ROOT / 'configs'
#: Methods whose columns come last.
VARIANTS = '-published', '-reviewkd'
DATA = {
    'cifar100': 'CIFAR-100', 'in1k': 'ImageNet', 'cub': 'CUB-200-2011', 'tiny-imagenet': 'Tiny-ImageNet',
    'coco': 'COCO', 'digits-8x8': 'Digits, 8x8', 'camvid-120x160': 'CamVid, 120x160',
    'mini-cityscapes-64x128': 'mini-Cityscapes, 64x128'}
PAGES = {
    'cls': ('Image classifiers', 'Configs for mmpretrain: the pairs of the papers. [Image '
            'classification](../classification.md) has the data, the networks and what was measured.'),
    'det': ('Object detectors', 'Configs for mmdet, all on COCO. [Object detection](../detection.md) has the settings '
            'and what was measured.'),
    'demo': ('Small data', 'Configs that train in minutes on a CPU: the quickstart on mini-Cityscapes, the studies on '
             'CamVid and on digits, detectors on mini-Cityscapes.')}


def write_zoo_pages(folder: Path) -> None:
    """Write the pages; those of segmentation stand in the repository, as configs/seg/**/README.md."""
    pages = sorted(path.relative_to(CONFIGS).with_suffix('').as_posix() for path in CONFIGS.rglob('*/README.md'))
    write(folder / 'index.md', '\n'.join([
        '# Config zoo', '',
        f'{len(configs())} configs, each a few lines long. Train one by its path in a checkout, or by its name after '
        'an install:', '', '    python tools/train.py configs/seg/kd/NAME.py',
        '    mmseg-kd train mmseg_kd::seg/kd/NAME.py', '',
        '```{toctree}', ':maxdepth: 1', '', 'Segmentors <seg/README>', 'cls', 'det', 'demo', '```', '',
        '```{toctree}', ':hidden:', '', *(page for page in pages if page != 'seg/README'), '```', '']))
    for room, (title, text) in PAGES.items():
        write(folder / f'{room}.md', '\n'.join([f'# {title}', '', text, '', *tables(room), *settings(room)]))


def configs(room: str = '') -> list[Path]:
    """All configs that train something, or those of one room."""
    return [path for path in sorted((CONFIGS / room).rglob('*.py')) if '_base_' not in path.parts]


def parse(path: Path) -> dict[str, str]:
    """Method, teacher, student and data of a config, from its name: method_teacher_student[_schedule]_data.

    A config without a teacher has only the student's name; its method is 'no teacher'.
    """
    *networks, data = [word for word in path.stem.split('_') if not re.fullmatch(r'\d+xb\d+(-\w+)?', word)]
    data_name = DATA.get(data, data)
    if len(networks) >= 3:
        return dict(method=networks[0], teacher=networks[1], student=networks[2], data=data_name)
    return dict(method='no teacher', teacher='', student='_'.join(networks), data=data_name)


def tables(room: str) -> list[str]:
    """A table for each data set: a row for each pair of networks, a column for each method, links to the configs."""
    by_data = {}
    for path in configs(room):
        by_data.setdefault(parse(path)['data'], []).append(path)
    lines = []
    for data, paths in by_data.items():
        cells, alone, methods = {}, [], []
        for path in paths:
            entry, link = parse(path), f'../../{path.relative_to(ROOT).as_posix()}'
            if entry['method'] == 'no teacher':
                alone.append(f'[{entry["student"]}]({link})')
                continue
            pair = cells.setdefault((entry['teacher'], entry['student']), {})
            pair[entry['method']] = f'[{own_settings(path, entry["method"]) or "config"}]({link})'
            methods += [entry['method']] * (entry['method'] not in methods)
        methods.sort(key=lambda method: method.endswith(VARIANTS))
        lines += [f'## {data}', '', row('teacher', 'student', *methods), row('---', '---', *['---'] * len(methods))]
        lines += [row(*names, *(pair.get(method, '') for method in methods)) for names, pair in cells.items()]
        lines += ['', f'Without a teacher: {", ".join(alone)}.' if alone else '', '']
    return lines


def row(*cells: str) -> str:
    return f'| {" | ".join(cells)} |'


def parts(path: Path, kind: str) -> list[Path]:
    """The parts of one kind that a config includes: ``'distill'`` or ``'pairs'``."""
    found = re.findall(rf'_base_/{kind}/([\w.-]+\.py)', path.read_text(encoding='utf-8'))
    return [CONFIGS / '_base_' / kind / name for name in found]


def own_settings(path: Path, method: str) -> str:
    """What the pair says about this method, like 'beta 8': the papers tune some settings for each pair."""
    for part in parts(path, 'pairs'):
        pair = assigned(part, 'pair') or {}
        plain = method.removesuffix('-reviewkd')
        chosen = pair.get(plain, {}) if isinstance(pair, dict) else {}
        return ', '.join(f'{key} {value:g}' for key, value in chosen.items() if isinstance(value, (int, float)))
    return ''


def assigned(path: Path, name: str) -> dict | None:
    """The value that a config part gives to a name, read without running it; None where it is not plain."""
    def value(node):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict' and not node.args:
            return {word.arg: value(word.value) for word in node.keywords}
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            return value(node.left) / value(node.right)
        if isinstance(node, ast.List | ast.Tuple):
            return [value(element) for element in node.elts]
        return ast.literal_eval(node)
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == name:
            try:
                return value(node.value)
            except ValueError:
                return None
    return None


def settings(room: str) -> list[str]:
    """The parts of configs/_base_/distill that the configs of a room include, as a table of terms."""
    rows = []
    for part in sorted({part for path in configs(room) for part in parts(path, 'distill')}):
        for term, entry in (assigned(part, 'distill') or {}).items():
            loss = dict(entry['loss'])
            kind = loss.pop('type').removeprefix('mmseg_kd.')
            link = f'[{part.stem}](../../{part.relative_to(ROOT).as_posix()})'
            rest = {key: value for key, value in entry.items() if key != 'loss'}
            rows.append(row(link, f'`{term}`', f'`{kind}`', as_text(loss), as_text(rest)))
    head = ['## Settings', '', 'A config includes one of these parts of `configs/_base_/distill/`. Where a cell above '
            'has numbers, they take the place of the numbers here.', '',
            row('part', 'term', 'loss', 'its settings', 'the term'), row(*['---'] * 5)]
    return [*head, *rows, ''] if rows else []


def as_text(values: dict) -> str:
    return ', '.join(f'{key} `{value}`' if isinstance(value, (str, list, tuple, dict)) else f'{key} {value:g}'
                     if isinstance(value, float) else f'{key} {value}' for key, value in values.items())
