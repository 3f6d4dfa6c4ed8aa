"""The segmentation zoo, and what its file names say: read by the tests beside this file."""
import functools
import json
import re
from pathlib import Path
from typing import NamedTuple

import mmengine.config.utils
import mmseg
import pytest
import yaml
from mmengine.config import Config
from tiny import ROOT

ZOO = ROOT / 'configs/seg'
MMSEG = Path(mmseg.__file__).parent / '.mim'
_ALL = sorted((path for path in ZOO.glob('*/*.py') if path.parent.name != 'vanilla'),
              key=lambda path: (path.name.split('_')[1:], path.name))
#: Configs with all settings of a paper, and those of the zoo's rule: every method on every pair, trained as mmseg does.
PUBLISHED = [path for path in _ALL if '-published_' in path.name]
CONFIGS = [path for path in _ALL if path not in PUBLISHED]
#: method, teacher, student, GPUs x pictures on each, thousands of iterations, data, crop.
GRAMMAR = re.compile(
    r'(?P<method>[a-z0-9-]+)_(?P<teacher>[a-z0-9-]+)_(?P<student>[a-z0-9-]+)_(?P<gpus>\d)xb(?P<batch>\d)-'
    r'(?P<kiloiters>\d+)k_(?P<data>[a-z0-9-]+)-(?P<height>\d+)x(?P<width>\d+)')

#: A network's head and what makes its backbone the one that it is.
HEADS = dict(pspnet='PSPHead', deeplabv3='ASPPHead', segformer='SegformerHead', upernet='UPerHead', pidnet='PIDHead')
BACKBONES = {
    'r18': dict(type='ResNetV1c', depth=18, strides=[1, 2, 2, 2]),
    'r18-d8': dict(type='ResNetV1c', depth=18, strides=[1, 2, 1, 1]),
    'r101-d8': dict(type='ResNetV1c', depth=101, strides=[1, 2, 1, 1]),
    'mobilenet-v2-d8': dict(type='MobileNetV2', widen_factor=1., strides=[1, 2, 2, 1, 1, 1, 1]),
    'mit-b0': dict(type='MixVisionTransformer', embed_dims=32, num_layers=[2, 2, 2, 2]),
    'mit-b5': dict(type='MixVisionTransformer', embed_dims=64, num_layers=[3, 6, 40, 3]),
    'swin-b': dict(type='SwinTransformer', embed_dims=128, depths=[2, 2, 18, 2]),
    's': dict(type='PIDNet', channels=32, num_stem_blocks=2), 'l': dict(type='PIDNet', channels=64, num_stem_blocks=3)}
#: A data set's type and number of classes.
DATA = {'cityscapes': ('CityscapesDataset', 19), 'ade20k': ('ADE20KDataset', 150),
        'coco-stuff164k': ('COCOStuffDataset', 171)}
LINK = re.compile(r'\]\(([^)#]+)(?:#[^)]*)?\)')


class Method(NamedTuple):
    """What a method's name stands for: term to (loss, what it reads), the second head, gradient alignment."""

    terms: dict
    dual_head: str | None = None
    aligned: bool = False


_REVIEW = dict(review=('HierarchicalContextLoss', 'stages'))
_LOGITS = dict(kd='KDLoss', cwd='CWDLoss', dist='DISTLoss', dkd='DKDLoss', gdkd='GDKDLoss', gdkd3='GDKD3Loss',
               dgkd='DGKDLoss')
_DHKD = dict(dhkd=('BinaryKLNormLoss', 'aux_logits'))
METHODS = {name: Method({name: (loss, 'logits')}) for name, loss in _LOGITS.items()} | {
    f'{name}-reviewkd': Method({name: (_LOGITS[name], 'logits')} | _REVIEW) for name in ('dkd', 'gdkd', 'gdkd3', 'dgkd')
} | {
    'reviewkd': Method(_REVIEW),
    'dhkd-linear': Method(_DHKD, 'linear'), 'dhkd-nonlinear': Method(_DHKD, 'nonlinear'),
    'dhkd-linear-align': Method(_DHKD, 'linear', aligned=True),
    'dhkd-linear-reviewkd': Method(_DHKD | _REVIEW, 'linear')}
#: Every (teacher, student, data) and the config of mmseg that the student trains by.
PAIRS = {
    ('pspnet-r101-d8', 'pspnet-r18-d8', 'cityscapes'): 'pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024',
    ('deeplabv3-r101-d8', 'deeplabv3-r18-d8', 'cityscapes'): 'deeplabv3/deeplabv3_r18-d8_4xb2-80k_cityscapes-512x1024',
    ('deeplabv3-r101-d8', 'deeplabv3-mobilenet-v2-d8', 'cityscapes'):
        'mobilenet_v2/mobilenet-v2-d8_deeplabv3_4xb2-80k_cityscapes-512x1024',
    ('deeplabv3-r101-d8', 'pspnet-r18-d8', 'cityscapes'): 'pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024',
    ('segformer-mit-b5', 'segformer-mit-b0', 'cityscapes'): 'segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024',
    ('pidnet-l', 'pidnet-s', 'cityscapes'): 'pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes',
    ('upernet-swin-b', 'upernet-r18', 'ade20k'): 'upernet/upernet_r18_4xb4-160k_ade20k-512x512',
    # There is none for these students: the schedule and data are those of ResNet-50.
    ('pspnet-r101-d8', 'pspnet-r18-d8', 'ade20k'): 'pspnet/pspnet_r50-d8_4xb4-160k_ade20k-512x512',
    ('pspnet-r101-d8', 'pspnet-r18-d8', 'coco-stuff164k'): 'pspnet/pspnet_r50-d8_4xb4-160k_coco-stuff164k-512x512'}


def parse(path: Path) -> dict[str, str]:
    """The parts of a config's file name.

    Raises:
        AssertionError: it is not written by the grammar.
    """
    found = GRAMMAR.fullmatch(path.stem)
    assert found, f'{path.name} is not <method>_<teacher>_<student>_<gpus>xb<batch>-<k>k_<data>-<crop>'
    return found.groupdict()


def pair_of(path: Path) -> tuple[str, str, str]:
    """(teacher, student, data) of a config's file name."""
    return tuple(parse(path)[part] for part in ('teacher', 'student', 'data'))


# mmengine reads all metafiles of mmseg again for every base that it has there: half a second each.
_load = functools.cache(mmengine.config.utils.load)


@functools.cache
def _resolved(path: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mmengine.config.utils, 'load', _load)
        return json.dumps(_plain(Config.fromfile(path, import_custom_modules=False).to_dict()))


def _plain(node):
    """Without the scopes that mmengine notes down, which say where a part of a config was read from."""
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items() if key != '_scope_'}
    return [_plain(value) for value in node] if isinstance(node, (list, tuple)) else node


def read(path: Path | str) -> Config:
    """A config, resolved; a name of mmseg's is looked up in the installed package. The copy is the caller's own."""
    return Config(json.loads(_resolved(path if isinstance(path, Path) else MMSEG / 'configs' / f'{path}.py')))


@functools.cache
def models_of_mmseg() -> dict[str, dict]:
    """Config file (as mmseg's metafiles name it) to its entry there."""
    index = yaml.safe_load((MMSEG / 'model-index.yml').read_text())['Import']
    entries = [entry for name in index for entry in yaml.safe_load((MMSEG / name).read_text())['Models']]
    return {entry['Config']: entry for entry in entries}


def rows(page: Path, columns: int) -> list[list[str]]:
    """Cells of the table rows of a page that have so many columns."""
    lines = [line for line in page.read_text().splitlines() if line.startswith('| ')]
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    return [row for row in cells if len(row) == columns]


def front_page() -> dict[tuple[str, str, str], list[str]]:
    """(teacher, student, data) to its row."""
    table = {}
    for row in rows(ZOO / 'README.md', 9):
        link = LINK.search(row[8])
        if link and '/pairs/' in link[1]:
            table[tuple(Path(link[1]).stem.split('_'))] = row
    return table


def sizes_of_pairs() -> dict[tuple[str, str, str], tuple[str, str]]:
    """(teacher, student, data) to the parameters of student and teacher, in words."""
    return {pair: (row[4], row[1]) for pair, row in front_page().items()}
