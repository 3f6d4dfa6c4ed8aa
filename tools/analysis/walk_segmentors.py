"""Which of mmseg's config families work as distilled student and as teacher: one step of the smallest member of each.

    python tools/analysis/walk_segmentors.py [--out docs/segmentors.md] [--families pspnet segformer ...]

Each is built as it ships, without weights, and goes forward and backward once on two small random images: as the
student of a tiny FCN, and as its teacher. With all families it takes some minutes; ``--out`` writes the table of the
docs.
"""
import argparse
import contextlib
import io
import re
import textwrap
import time
from pathlib import Path

import mmengine
import mmseg
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData

import mmseg_kd  # noqa: F401 (before configs are read: makes 'mmseg::' bases resolve)
from mmseg_kd.registry import MODELS

CONFIGS = Path(mmseg.__file__).parent / '.mim/configs'
#: How the name of the smallest member of each family begins.
SMALLEST = dict(
    ann='ann_r50-d8', apcnet='apcnet_r50-d8', beit='beit-base_upernet', bisenetv1='bisenetv1_r18-d32_',
    bisenetv2='bisenetv2_', ccnet='ccnet_r50-d8', cgnet='cgnet_', convnext='convnext-tiny_', danet='danet_r50-d8',
    ddrnet='ddrnet_23-slim_', deeplabv3='deeplabv3_r18-d8', deeplabv3plus='deeplabv3plus_r18-d8', dmnet='dmnet_r50-d8',
    dnlnet='dnl_r50-d8', dpt='dpt_', dsdl='cityscapes', emanet='emanet_r50-d8', encnet='encnet_r50-d8',
    erfnet='erfnet_', fastfcn='fastfcn_r50-d32_jpu_psp', fastscnn='fast_scnn', fcn='fcn_r18-d8', gcnet='gcnet_r50-d8',
    hrnet='fcn_hr18s', icnet='icnet_r18-d8_', isanet='isanet_r50-d8', knet='knet-s3_r50-d8_fcn', mae='mae-base',
    mask2former='mask2former_r50', maskformer='maskformer_r50', mobilenet_v2='mobilenet-v2-d8_fcn',
    mobilenet_v3='mobilenet-v3-d8-scratch-s', nonlocal_net='nonlocal_r50-d8', ocrnet='ocrnet_hr18s', pidnet='pidnet-s',
    point_rend='pointrend_r50', poolformer='fpn_poolformer_s12', psanet='psanet_r50-d8', pspnet='pspnet_r18-d8',
    resnest='resnest_s101-d8_fcn', san='san-vit-b16_voc', segformer='segformer_mit-b0', segmenter='segmenter_vit-t',
    segnext='segnext_mscan-t', sem_fpn='fpn_r50', setr='setr_vit-l_naive', stdc='stdc1_4',
    swin='swin-tiny-patch4-window7-in1k', twins='twins_svt-s_fpn', unet='unet-s5-d16_fcn', upernet='upernet_r18',
    vit='vit_deit-s16_upernet', vpd='vpd_sd')
# Enough for most; the others (LRASPP pools over 49 positions, BEiT's attention knows one size) get their own crop.
_SIDE = 128
_ROW = re.compile(r'^\| (\w+) \| `([^`]+)` \| (.+) \| (.+) \|$', re.MULTILINE)
_DISTILLED = dict(EncoderDecoder='DistilledEncoderDecoder', CascadeEncoderDecoder='DistilledCascadeEncoderDecoder')
# What of an error's text tells why, in the table's words.
_REASONS = (
    ('without a dense map of class logits', 'it has no map of logits: only terms on features'),
    (r"mmcv\._ext|mmcv\.ops|CrissCrossAttention|PSAMask|point_sample|compiled", 'needs mmcv with compiled operators'),
    (r"mmdet|BaseModule.__init__\(\) got an unexpected keyword", 'needs mmdet, and that mmcv with compiled operators'),
    (r"mmpretrain", 'needs mmpretrain: `pip install mmseg_kd[cls]`'),
    (r"dsdl", 'needs the package dsdl'),
)


class Unfit(Exception):
    """A network that is not meant to be distilled; the text says why."""


def families() -> list[str]:
    """The config families that the installed mmseg ships."""
    return sorted(path.name for path in CONFIGS.iterdir() if path.is_dir() and path.name != '_base_')


def smallest(family: str) -> str:
    """Path of a family's smallest member below the configs; one for Cityscapes where there is one."""
    names = [path.name for path in (CONFIGS / family).glob(f'{SMALLEST[family]}*.py')]
    return f'{family}/{min(names, key=lambda name: ("cityscapes" not in name, name))}'


def network(config: str, side: int) -> dict:
    """The ``model`` of a config as it can be built here: without weights, with plain BN, for images of one size."""
    model = Config.fromfile(CONFIGS / config).model.to_dict()
    model['pretrained'] = None
    model.setdefault('data_preprocessor', {})['size'] = (side, side)
    model['data_preprocessor'].pop('size_divisor', None)
    # Sliding windows are set aside; what else a head wants to know stays.
    kept = {key: value for key, value in (model.get('test_cfg') or {}).items() if key not in ('crop_size', 'stride')}
    model['test_cfg'] = dict(kept, mode='whole')
    return _without_sync_bn(model)


def _without_sync_bn(node):
    if isinstance(node, dict):
        changed = dict(type='BN') if node.get('type') == 'SyncBN' else {}
        return {key: _without_sync_bn(value) for key, value in node.items()} | changed
    return type(node)(map(_without_sync_bn, node)) if isinstance(node, (list, tuple)) else node


def tiny(classes: int, preprocessor: dict) -> dict:
    """A small FCN of the same classes."""
    return dict(
        type='EncoderDecoder', data_preprocessor=preprocessor,
        backbone=dict(type='ResNetV1c', depth=18, stem_channels=8, base_channels=8, norm_cfg=dict(type='BN')),
        decode_head=dict(type='FCNHead', in_channels=64, in_index=3, channels=8, num_convs=1, concat_input=False,
                         num_classes=classes, norm_cfg=dict(type='BN'), align_corners=False,
                         loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True)),
        train_cfg=dict(), test_cfg=dict(mode='whole'))


def step(student: dict, teacher: dict, classes: int, side: int) -> None:
    """Build the pair and go forward and backward once.

    Raises:
        RuntimeError: the loss is not finite, or the student learns nothing from the teacher.
    """
    from mmseg.structures import SegDataSample
    kind = student['type'].rpartition('.')[2]
    if kind not in _DISTILLED:
        raise Unfit(f'{kind} has no distilled form')
    torch.manual_seed(0)
    settings = student | dict(
        type=f'mmseg_kd.{_DISTILLED[kind]}', teacher=dict(config=dict(model=teacher)),
        distill=dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss'))))
    with DefaultScope.overwrite_default_scope('mmseg'):
        # Some heads read their settings as attributes.
        model = MODELS.build(ConfigDict(settings)).train()
    samples = []
    for _ in range(2):
        sample = SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, classes, (1, side, side))),
                               gt_edge_map=PixelData(data=torch.randint(0, 2, (1, side, side))))
        sample.set_metainfo(dict(img_shape=(side, side), ori_shape=(side, side)))
        samples.append(sample)
    data = model.data_preprocessor(
        dict(inputs=[torch.randint(0, 256, (3, side, side)).byte() for _ in samples], data_samples=samples), True)
    losses = model(**data, mode='loss')
    value = losses['distill.loss_kd']
    model.parse_losses(losses)[0].backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if not (torch.isfinite(value) and value > 0 and gradients and all(each.isfinite().all() for each in gradients)):
        raise RuntimeError(f'loss {value.item()} with {len(gradients)} gradients')


def attempt(function, *args) -> str:
    """Call, and say 'yes' or why not."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            function(*args)
    except Unfit as error:
        return str(error)
    except Exception as error:  # whatever stops a family belongs into its row
        text = f'{type(error).__name__}: {error}'
        for pattern, reason in _REASONS:
            if re.search(pattern, text):
                return reason
        return ' '.join(text.split())[:160]
    return 'yes'


def walk(family: str) -> dict[str, str]:
    """Run one family: its ``config``, and 'yes' or a reason as ``student`` and as ``teacher``."""
    row = dict(config=smallest(family))
    for role in ('student', 'teacher'):
        for own_size in (False, True):
            row[role] = attempt(_as, role, row['config'], own_size)
            # Only an error that another size may mend is worth another try.
            if 'Error' not in row[role]:
                break
    return row


def _as(role: str, config: str, own_size: bool) -> None:
    side = min(Config.fromfile(CONFIGS / config).get('crop_size', (512, 512))) if own_size else _SIDE
    model = network(config, side)
    head = model['decode_head']
    head = head[-1] if isinstance(head, list) else head
    # K-Net's head is made of others.
    classes = head.get('num_classes') or head.get('kernel_generate_head', {}).get('num_classes')
    if classes is None:
        raise Unfit(f'{head["type"]} has no classes')
    other = tiny(classes, {key: value for key, value in model['data_preprocessor'].items()})
    step(*((model, other) if role == 'student' else (other, model)), classes, side)


def read_page(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a page that :func:`page` wrote."""
    return {family: dict(config=f'{family}/{config}.py', student=student, teacher=teacher)
            for family, config, student, teacher in _ROW.findall(path.read_text())}


def page(rows: dict[str, dict[str, str]]) -> str:
    """The table as a page of the docs."""
    from mmcv import __version__ as mmcv_version
    counts = {role: sum(row[role] == 'yes' for row in rows.values()) for role in ('student', 'teacher')}
    text = (
        f'The smallest member of each of the {len(rows)} config families that mmseg {mmseg.__version__} ships, built '
        'without weights, in one distilled forward and backward pass on two random images: as the student of a tiny '
        f'FCN, and as its teacher. {counts["student"]} work as student, {counts["teacher"]} as teacher. Made by '
        f'`python tools/analysis/walk_segmentors.py --out docs/segmentors.md` with torch {torch.__version__}, mmcv '
        f'{mmcv_version} and mmengine {mmengine.__version__}, each in the environment that it needs: convnext and '
        'poolformer want mmpretrain; ccnet, psanet, point_rend and san an mmcv with compiled operators, maskformer and '
        'mask2former mmdet besides.')
    lines = ['# Which segmentors work', '',
             *textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False), '',
             '| family | config | as student | as teacher |', '| --- | --- | --- | --- |']
    for family, row in rows.items():
        name = row['config'].partition('/')[2].removesuffix('.py')
        lines.append(f'| {family} | `{name}` | {row["student"]} | {row["teacher"]} |')
    query = (
        'MaskFormer and Mask2Former classify masks, not pixels: as teachers they give the logarithm of their per-pixel '
        'class scores as logits (`mmseg_kd/distillers/segmentation/heads.py` says what that leaves out), tested '
        'through '
        "mmseg's own `predict` on made-up queries; as students they have no map of logits, so terms "
        'on features alone, and no dual head. The backbones of convnext and poolformer are those of mmpretrain.')
    lines += ['', *textwrap.wrap(query, 120, break_long_words=False, break_on_hyphens=False)]
    return '\n'.join(lines) + '\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, help='write the table here')
    parser.add_argument('--families', nargs='+', default=[], choices=families(),
                        help='only these; the other rows stay as they are in --out')
    args = parser.parse_args()
    rows = read_page(args.out) if args.families and args.out and args.out.is_file() else {}
    for family in args.families or families():
        start = time.perf_counter()
        rows[family] = walk(family)
        print(f'{family}: {rows[family]} ({time.perf_counter() - start:.1f} s)', flush=True)
    if args.out:
        args.out.write_text(page(dict(sorted(rows.items()))))


if __name__ == '__main__':
    main()
