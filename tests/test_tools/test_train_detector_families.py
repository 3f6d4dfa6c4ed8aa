"""Every family of configs/det as it is shipped, batch sampler included, through tools/train.py on generated boxes."""
import json
import os
import runpy
import sys

import numpy as np
import pytest
import tiny_det  # noqa: F401 (skips without mmdet)
from mmengine.config import Config
from PIL import Image
from tiny import ROOT

pytestmark = pytest.mark.det
#: One config of each pair of teacher and student; together they have every method.
FAMILIES = {path.stem.split('_', 1)[1]: path for path in sorted((ROOT / 'configs/det').rglob('*.py'))}


@pytest.fixture(scope='module')
def boxes(tmp_path_factory):
    """Four pictures of 48 x 64 and 64 x 48 pixels with two boxes each, in COCO's format and names."""
    root = tmp_path_factory.mktemp('boxes')
    (root / 'pictures').mkdir()
    random = np.random.default_rng(0)
    images, annotations = [], []
    for index in range(4):
        width, height = (64, 48) if index % 2 else (48, 64)
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f'pictures/{index}.jpg')
        images.append(dict(id=index, file_name=f'{index}.jpg', width=width, height=height))
        for left, category in ((4, 1), (20, 2)):
            square = [left, 6, left + 20, 6, left + 20, 30, left, 30]
            annotations.append(dict(id=len(annotations), image_id=index, category_id=category, iscrowd=0, area=480,
                                    bbox=[left, 6, 20, 24], segmentation=[square]))
    categories = [dict(id=1, name='person'), dict(id=2, name='bicycle')]
    (root / 'boxes.json').write_text(json.dumps(
        dict(images=images, annotations=annotations, categories=categories)))
    return root


@pytest.mark.parametrize('path', FAMILIES.values(), ids=FAMILIES)
def test_two_iterations(path, boxes, tmp_path, monkeypatch):
    """One epoch of four pictures in batches of two, in this process: ten starts of mmdet would take longer."""
    config = Config.fromfile(path, import_custom_modules=False)
    assert config.train_dataloader.batch_sampler.type == 'AspectRatioBatchSampler'
    # Weights from the internet, numbers of workers and the sizes of pictures are all that is changed.
    options = ['model.backbone.init_cfg=None', 'model.teacher.checkpoint=None', 'train_cfg.max_epochs=1',
               'train_cfg.val_begin=2', 'default_hooks.logger.interval=1', f'visualizer.name={path.stem}',
               'default_hooks.checkpoint.interval=2', 'default_hooks.checkpoint.save_last=False',
               f'val_evaluator.ann_file={boxes}/boxes.json']
    for split in ('train', 'val', 'test'):
        loader = f'{split}_dataloader'
        resize = [transform.type for transform in config[loader].dataset.pipeline].index('Resize')
        options += [f'{loader}.num_workers=0', f'{loader}.persistent_workers=False',
                    f'{loader}.dataset.data_root={boxes}', f'{loader}.dataset.ann_file=boxes.json',
                    f'{loader}.dataset.data_prefix.img=pictures/', f'{loader}.dataset.pipeline.{resize}.scale=(64,64)']
    monkeypatch.setattr(sys, 'argv', ['tools/train.py', str(path), '--work-dir', str(tmp_path), '--cfg-options',
                                      'train_dataloader.batch_size=2', *options])
    # The tool sets the variable of a launcher.
    monkeypatch.setattr(os, 'environ', {**os.environ, 'LOCAL_RANK': '0'})
    runpy.run_path(str(ROOT / 'tools/train.py'), run_name='__main__')
    log, = tmp_path.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in log.read_text().splitlines()]
    terms = [name for name in records[0] if name.startswith('distill.loss_')]
    assert len(records) == 2 and len(terms) == len(config.model.distill)
    assert all(np.isfinite(record[name]) for record in records for name in ['loss', *terms])
