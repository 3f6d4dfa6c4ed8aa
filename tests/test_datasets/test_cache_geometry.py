"""Cached logits lie where the live teacher's lie: by a teacher that says where each pixel came from."""
import cv2
import numpy as np
import pytest
import tiny
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import nn
from torch.nn import functional as F

from mmseg_kd.datasets.teacher_cache import CachedMap, TeacherCache
from mmseg_kd.distillers.segmentation.prediction import ask_teacher, small_map
from mmseg_kd.functional.upsampled import at_full_size
from mmseg_kd.teachers.cached import CachedTeacher

STRIDE = 8


@MODELS.register_module()
class Sampled(nn.Module):
    """A backbone without a receptive field: the pixels themselves, where a map of stride 8 has its positions."""

    def __init__(self, align_corners):
        super().__init__()
        self.align_corners = align_corners

    def forward(self, images):
        size = [-(-side // STRIDE) for side in images.shape[2:]]
        return [F.interpolate(images, size, mode='bilinear', align_corners=self.align_corners)]


@MODELS.register_module()
class PixelsAsLogits(BaseDecodeHead):
    def forward(self, inputs):
        return inputs[0]


@MODELS.register_module()
class WithoutSmallMap(PixelsAsLogits):
    """As every cascade and query head: what it predicts is at full size already."""

    def predict(self, *args):
        return super().predict(*args)


def owner(align_corners, head, padding, slide):
    """A student with this teacher."""
    teacher = dict(
        type='EncoderDecoder', backbone=dict(type='Sampled', align_corners=align_corners),
        decode_head=dict(type=head, in_channels=3, in_index=0, channels=3, num_classes=3, align_corners=align_corners,
                         dropout_ratio=0., loss_decode=dict(type='CrossEntropyLoss')),
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[0.] * 3, std=[1.] * 3, size=(8, 8), pad_val=77.,
                               test_cfg=padding),
        test_cfg=dict(mode='slide', crop_size=(56, 56), stride=(24, 32)) if slide else dict(mode='whole'))
    student = tiny.segmentor(4, num_classes=3)
    student['data_preprocessor'] = tiny.preprocessor(mean=[3.] * 3, std=[2.] * 3)

    terms = dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss')))
    return tiny.build_part(ConfigDict(tiny.distilled(student, teacher, distill=terms)))


def random_case(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(70, 200, 2))
    steps = [dict(type='RandomResize', scale=(width, height), ratio_range=(.6, 1.8), keep_ratio=bool(rng.integers(2))),
             dict(type='RandomCrop', crop_size=tuple(int(side) for side in rng.integers(24, 90, 2))),
             dict(type='RandomFlip', prob=.5), dict(type='RandomFlip', prob=.5, direction='vertical')]
    steps = [step for step in steps if rng.random() < .7]
    factor = rng.uniform(.6, 1.6)
    scale = (int(factor * width), int(factor * height)) if rng.random() < .4 else None
    padding = dict(size_divisor=int(rng.choice([16, 32, 50]))) if rng.random() < .5 else None
    return (height, width), steps, scale, padding, rng.random() < .25


@pytest.mark.filterwarnings('ignore:When align_corners=True')
@pytest.mark.parametrize('head', ['PixelsAsLogits', 'WithoutSmallMap'])
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('seed', range(14))
def test_a_linear_ramp_stays_in_place(tmp_path, seed, align_corners, head):
    """Against the pixels of the augmented picture, which hold their own positions, and against the live teacher."""
    (height, width), steps, scale, padding, slide = random_case(seed)
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    assert cv2.imwrite(str(tmp_path / 'image.png'), np.stack([columns, rows, 0 * rows], 2).astype(np.uint8))
    assert cv2.imwrite(str(tmp_path / 'label.png'), (columns % 3).astype(np.uint8))
    about = dict(img_path=str(tmp_path / 'image.png'), seg_map_path=str(tmp_path / 'label.png'), seg_fields=[],
                 reduce_zero_label=False, label_map=None)
    model = owner(align_corners, head, padding, slide)
    resize = [dict(type='Resize', scale=scale, keep_ratio=True)] if scale else []
    cache = TeacherCache(tmp_path / 'cache')
    with DefaultScope.overwrite_default_scope('mmseg'):
        item = Compose([dict(type='LoadImageFromFile'), *resize, dict(type='PackSegInputs')])(dict(about))
        answer, = ask_teacher(model.teacher, model.data_preprocessor, pseudo_collate([item]))
        logits, size, aligned = small_map(answer)
        cache.begin(dict(classes=3, top_k=None, align_corners=align_corners))
        cache.write(about['img_path'], CachedMap(logits[0].numpy(), aligned, answer.seen, size))
        cache.finish(1)
        np.random.seed(seed)
        seen = Compose([
            dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
            dict(type='mmseg_kd.LoadTeacherLogits', cache=str(cache.folder)), *steps,
            dict(type='mmseg_kd.PackDistillInputs', cache=str(cache.folder))])(dict(about))
    picture = seen['inputs'].float()
    got = at_full_size(CachedTeacher(3, str(cache.folder))(
        picture[None], [seen['data_samples']], {'logits'})['logits'])[0, :2]

    # A cell of the cache, in pixels of the file; the live teacher's, which sees the picture larger or smaller.
    cell = torch.tensor([STRIDE * whole / part for whole, part in zip((width, height), answer.seen[::-1], strict=True)])
    found = (got - picture[:2]).abs()
    ends = torch.tensor([width - 1, height - 1])[:, None, None] - 2 * cell[:, None, None]
    inside = (picture[:2] < ends).all(0)
    # Where a picture was padded, its last cells mix picture and padding, in mmseg's own prediction as well.
    counted = inside if padding else torch.ones_like(inside)
    # Pixels are whole numbers, and float16 has steps of 1/8 here.
    assert (found[:, counted].amax(1) < cell / 2 + .6).all()
    # The ends of a map, and of every window, are flat.
    inside &= (picture[:2] > cell[:, None, None]).all(0)
    if inside.any() and not slide:
        assert found[:, inside].max() < 1.2 and found[:, inside].mean() < .5

    with torch.no_grad():
        live = at_full_size(model.teacher((picture[None].flip(1) - 3) / 2, [], {'logits'})['logits'])[0, :2]
    step = torch.stack([picture[0].diff(dim=1).abs().mean(), picture[1].diff(dim=0).abs().mean()])
    assert ((got - live).abs()[:, counted].amax(1) < torch.maximum(cell, STRIDE * step) / 2 + .6).all()
