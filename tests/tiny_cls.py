"""Real mmpretrain models and runs, small enough for a test. Importing this skips a test file without the extra."""
import numpy as np
import pytest
import torch
from tiny import build, distilled

pytest.importorskip('mmpretrain', reason='needs the extra "cls": bash tools/test.sh --all')

NUM_CLASSES = 10


def classifier(depth=8, num_classes=NUM_CLASSES, mean=100., **settings):
    """Config of a small mmpretrain ImageClassifier for pictures of 8 pixels."""
    return dict(
        type='ImageClassifier',
        data_preprocessor=dict(type='ClsDataPreprocessor', num_classes=num_classes, mean=[mean] * 3, std=[60.] * 3),
        backbone=dict(type='mmseg_kd.CIFARResNet', depth=depth),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=num_classes, in_channels=64, loss=dict(type='CrossEntropyLoss'))
    ) | settings


def distilled_classifier(student, teacher, checkpoint=None, distill=None, **settings):
    """Config of the distilled form of a student."""
    distill = distill or dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss', temperature=4.)))
    return distilled(student, teacher, checkpoint, distill) | dict(type='mmseg_kd.DistilledImageClassifier') | settings


def build_classifier(model, seed=0):
    """Build a model from its config under a seed, with initialised weights, in mmpretrain's scope."""
    return build(model, seed, 'mmpretrain')


def build_dataset(config):
    """Build a data set from its config in mmpretrain's scope."""
    from mmengine.registry import DefaultScope
    from mmpretrain.registry import DATASETS
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return DATASETS.build(config)


def image_batch(size=4, side=8, num_classes=NUM_CLASSES, seed=0, labels=None, scores=None):
    """A raw batch as a data loader gives it: images 0..255 and labels, soft labels ``scores`` (N, C), or both."""
    from mmpretrain.structures import DataSample
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (size, 3, side, side), generator=generator).to(torch.uint8)
    if labels is None and scores is None:
        labels = torch.randint(0, num_classes, (size,), generator=generator).tolist()
    samples = [DataSample() for _ in range(size)]
    for index, sample in enumerate(samples):
        if labels is not None:
            sample.set_gt_label(labels[index])
        if scores is not None:
            sample.set_gt_score(scores[index])
    return dict(inputs=list(images), data_samples=samples)


def losses_of(model, data=None, seed=7):
    """Losses of a training step on a batch, under a seed."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    data = model.data_preprocessor(data or image_batch(), True)
    return model.train().loss(data['inputs'], data['data_samples'])
