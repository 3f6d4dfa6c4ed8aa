"""Configs that a training run left, read as data."""
import ast
import re
from collections.abc import Iterator

from mmengine.config import Config

__all__ = ['load_config_without_code', 'parse_config_without_code']

# A dotted type is imported and called with the config's arguments; so it must be a class of a library of models, and
# none that reads configs and checkpoints on its own.
_LIBRARIES = r'(?:(?:mmengine|mmcv|mmseg|mmdet|mmpretrain|mmseg_kd)|torch\.(?:nn|optim))'
_KNOWN_TYPE = re.compile(
    _LIBRARIES + r'\.(?:(?!apis\.|infer\.|hub\.|config\.)\w+\.)*(?!Runner|FlexibleRunner|Config)[A-Z]\w*')
# Readers of data unpickle what is called so, or what they are told to.
_PICKLE = re.compile(r'(?:.*\.)?(?:pkl|pickle|pk)', re.IGNORECASE | re.DOTALL)


def load_config_without_code(path: str, setting: str = 'config') -> Config:
    """Read a config that mmengine has dumped: literals and ``dict(...)`` calls, and no other Python.

    Args:
        path: A local file.
        setting: Name of the setting that ``path`` came from, for the error messages.

    Raises:
        ValueError: it holds anything else.
    """
    try:
        with open(path, encoding='utf-8') as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f'`{setting}`: {str(path)!r} is not a config but binary data.') from error
    return Config(parse_config_without_code(text, str(path), setting), filename=str(path))


def parse_config_without_code(text: str, path: str, setting: str = 'config') -> dict:
    """The settings of a dumped config's text; errors are those of :func:`load_config_without_code`."""
    try:
        statements = ast.parse(text).body
        settings = dict(map(_assignment, statements))
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        # What ast.parse does not take, and what _value does not.
        line = getattr(error, 'lineno', None)
        raise ValueError(
            f'`{setting}`: {path!r}{f", line {line}," if line else ""} is not a config as a training run leaves it '
            f'(settings of literals and dict(...), nothing else): {getattr(error, "msg", error)}. It was not run. If '
            'you trust it, say --trust-configs.') from error
    for where, value, reason in _programs(settings):
        raise ValueError(f'`{setting}`: {path!r} has {where}={value!r}, {reason}. If you trust the config, say '
                         '--trust-configs.')
    return settings


class _NotData(ValueError):
    def __init__(self, node: ast.AST):
        super().__init__(f'`{ast.unparse(node)[:60]}` is not data')
        self.lineno = getattr(node, 'lineno', None)


def _assignment(node: ast.stmt) -> tuple[str, object]:
    if not isinstance(node, ast.Assign) or len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name):
        raise _NotData(node)
    return node.targets[0].id, _value(node.value)


def _value(node: ast.expr) -> object:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List):
        return [_value(each) for each in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(each) for each in node.elts)
    if isinstance(node, ast.Set):
        return {_value(each) for each in node.elts}
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True)}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
        if node.func.id == 'dict' and all(keyword.arg for keyword in node.keywords):
            return {keyword.arg: _value(keyword.value) for keyword in node.keywords}
        if node.func.id == 'set' and not node.keywords:
            return set()
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        number = _value(node.operand)
        if type(number) in (int, float, complex):
            return -number if isinstance(node.op, ast.USub) else number
    if isinstance(node, ast.Name) and node.id in ('inf', 'nan'):
        return float(node.id)
    raise _NotData(node)


def _programs(value: object, where: str = '') -> Iterator[tuple[str, str, str]]:
    """Every setting that would make a program run: where it stands, its value, and what would happen."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _programs(inner, f'{where}.{key}' if where else str(key))
    elif isinstance(value, (list, tuple, set)):
        for index, inner in enumerate(value):
            yield from _programs(inner, f'{where}[{index}]')
    elif isinstance(value, str):
        if where.rpartition('.')[2] == 'type' and '.' in value and not _KNOWN_TYPE.fullmatch(value):
            yield where, value, 'which would be imported and called'
        elif _PICKLE.fullmatch(value):
            yield where, value, 'which would be unpickled, and a pickle can run code'
