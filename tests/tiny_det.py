"""Real mmdet models, small enough for a test. Importing this skips a test file without mmdet or mmcv's operators."""
import copy

import pytest
import torch
from tiny import build, distilled

pytest.importorskip('mmcv._ext', reason='mmcv has no compiled operators: bash tools/mmcv_with_ops.sh',
                    exc_type=ImportError)
pytest.importorskip('mmdet', reason='needs the extra "det": bash tools/test.sh --all')

NUM_CLASSES = 3
SIDE = 128
#: The config of mmdet behind each short name.
FAMILIES = dict(
    retinanet='retinanet/retinanet_r18_fpn_1x_coco.py', fcos='fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    gfl='gfl/gfl_r50_fpn_1x_coco.py', atss='atss/atss_r50_fpn_1x_coco.py',
    faster_rcnn='faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', mask_rcnn='mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    cascade_rcnn='cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    cascade_mask_rcnn='cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py')
TWO_STAGE = ('faster_rcnn', 'mask_rcnn', 'cascade_rcnn', 'cascade_mask_rcnn')


def detector(family, width=8, num_classes=NUM_CLASSES):
    """A shipped config of mmdet, made narrow: ResNet-18 with ``width`` base channels, 16 channels in neck and heads."""
    from mmengine.hub import get_config
    model = get_config(f'mmdet::{FAMILIES[family]}').model.to_dict()
    model['backbone'] |= dict(depth=18, base_channels=width, stem_channels=width, frozen_stages=-1, norm_eval=False,
                              style='pytorch', init_cfg=None)
    model['backbone']['norm_cfg'] = dict(type='BN', requires_grad=True)
    model['neck'] |= dict(in_channels=[width, 2 * width, 4 * width, 8 * width], out_channels=16)
    _narrow(model, num_classes)
    if family in ('fcos', 'gfl', 'atss'):
        model['bbox_head']['norm_cfg'] = dict(type='GN', num_groups=4)
    if 'rpn_head' in model:
        model['train_cfg']['rpn_proposal'] |= dict(nms_pre=100, max_per_img=50)
        for stage in _each(model['train_cfg']['rcnn']):
            stage['sampler']['num'] = 16
    return model


def _each(value):
    return value if isinstance(value, (list, tuple)) else [value]


def _narrow(node, num_classes):
    """Give every head below ``node`` 16 channels and ``num_classes`` classes."""
    changes = dict(in_channels=16, feat_channels=16, out_channels=16, conv_out_channels=16, fc_out_channels=32,
                   num_classes=num_classes, stacked_convs=1, num_convs=1)
    for key, value in node.items():
        for child in _each(value):
            if isinstance(child, dict) and key not in ('backbone', 'neck'):
                _narrow(child, num_classes)
        if key in changes and not isinstance(value, (dict, list)):
            node[key] = changes[key]


def distilled_detector(student, teacher, checkpoint=None, distill=None, **settings):
    """Config of the distilled form of a student."""
    kind = 'TwoStage' if 'roi_head' in student else 'SingleStage'
    distill = distill or dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss', temperature=2.)))
    return distilled(student, teacher, checkpoint, distill) | dict(
        type=f'mmseg_kd.Distilled{kind}Detector') | copy.deepcopy(settings)


def build_detector(model, seed=0):
    """Build a model from its config under a seed, with initialised weights, in mmdet's scope."""
    from mmengine.config import ConfigDict
    return build(ConfigDict(model), seed, 'mmdet')


def box_batch(size=2, side=SIDE, num_classes=NUM_CLASSES, seed=0, masks=True):
    """A raw batch as a data loader gives it: images 0..255, the second one smaller, with two objects each."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData
    generator = torch.Generator().manual_seed(seed)
    images, samples = [], []
    for index in range(size):
        height, width = side - 8 * index, side
        images.append(torch.randint(0, 256, (3, height, width), generator=generator).to(torch.uint8))
        corners = torch.tensor([[8., 10., 60., 70.], [40., 30., 120., 100.]]) * side / 128 + index
        instances = InstanceData(
            bboxes=corners, labels=torch.randint(0, num_classes, (2, ), generator=generator))
        if masks:
            bitmaps = torch.zeros(2, height, width, dtype=torch.uint8)
            for mask, (left, top, right, bottom) in zip(bitmaps, corners.int().tolist(), strict=True):
                mask[top:bottom, left:(left + right) // 2] = 1
            instances.masks = BitmapMasks(bitmaps.numpy(), height, width)
        sample = DetDataSample(gt_instances=instances, ignored_instances=InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)))
        sample.set_metainfo(dict(img_shape=(height, width), ori_shape=(height, width), scale_factor=(1., 1.),
                                 batch_input_shape=(side, side), pad_shape=(height, width), img_id=index))
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def losses_of(model, data=None, seed=7):
    """Losses of a training step on a batch, under a seed."""
    torch.manual_seed(seed)
    data = model.data_preprocessor(copy.deepcopy(data or box_batch()), True)
    return model.train()(**data, mode='loss')
