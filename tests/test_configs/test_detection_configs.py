"""Every detection config: read, its terms built; and one training step of each pair, on a small random picture."""
import functools
import re
from pathlib import Path
from urllib.parse import urlparse

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from tiny import ROOT, build_part
from tiny_det import box_batch

from mmseg_kd.distillers.detection.positions import WEIGHTS
from mmseg_kd.distillers.terms import build_terms

pytestmark = pytest.mark.det
CONFIGS = sorted((ROOT / 'configs/det').rglob('*.py'))
#: One config of each pair (teacher_student).
PAIRS = {path.stem.split('_', 1)[1]: path for path in CONFIGS}
#: And those with a second classifier.
STEPPED = PAIRS | {path.stem: path for path in CONFIGS if path.parent.name == 'dhkd'}


@functools.lru_cache
def published():
    """Config to checkpoint, as mmdet has them."""
    import mmdet
    root = Path(mmdet.__file__).parent / '.mim'
    folders = ('retinanet', 'fcos', 'gfl', 'atss', 'faster_rcnn', 'mask_rcnn', 'cascade_rcnn')
    return {entry['Config']: entry.get('Weights') for folder in folders
            for entry in yaml.safe_load((root / f'configs/{folder}/metafile.yml').read_text())['Models']}


def test_all_pairs_are_there():
    assert len(PAIRS) == 11 and len(CONFIGS) >= 26


@pytest.mark.parametrize('method, term, loss', [
    ('gdkd', 'gdkd', dict(type='mmseg_kd.GDKDLoss', k=5, w0=1, w1=0.125, w2=0.25, temperature=1)),
    ('gdkd3', 'gdkd3', dict(type='mmseg_kd.GDKD3Loss', k=2, w0=1, w1=0, w2=0.25, temperature=1)),
    ('ld-gdkd', 'ld', dict(type='mmseg_kd.GDKDLoss', k=5, w0=1, w1=1, w2=2, temperature=4, loss_weight=0.5))])
def test_gdkd_has_the_settings_of_its_detection_code(method, term, loss):
    paths = [path for path in CONFIGS if path.parent.name == method]
    assert len(paths) == (2 if method == 'ld-gdkd' else 3)
    for path in paths:
        settings = Config.fromfile(path, import_custom_modules=False).model.distill[term]
        assert settings == dict(loss=loss, on='box_logits' if term == 'ld' else 'logits')


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_it_reads_and_its_terms_build(path):
    config = Config.fromfile(path, import_custom_modules=False)
    terms = build_terms(config.model.distill, None, WEIGHTS)
    assert len(terms) == (2 if 'mask' in path.parent.name else 1) and all(
        term.loss.ignore_index is None for term in terms.values())
    teacher, student = path.stem.split('_')[1:3]
    family, depth = teacher.rsplit('-', 1)
    assert re.match(rf'mmdet::\w+/{family}_{depth}[-_]', config.model.teacher.config)
    assert str(config.model.backbone.get('depth', 'mobilenet')) in student
    # Config and checkpoint stand side by side in a metafile of mmdet; hosts differ by distribution.
    theirs = published()[f'configs/{config.model.teacher.config.removeprefix("mmdet::")}']
    assert urlparse(config.model.teacher.checkpoint).path.partition('/v2.0/')[2] == (
        urlparse(theirs).path.partition('/v2.0/')[2]) != ''


@pytest.mark.parametrize('path', STEPPED.values(), ids=STEPPED)
def test_one_training_step(path):
    config = Config.fromfile(path, import_custom_modules=False)
    config.model.teacher.pop('checkpoint')
    model = build_part(config.model, 'mmdet')
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    parameter = model.neck.lateral_convs[0].conv.weight
    before = parameter.detach().clone()
    logs = model.train().train_step(box_batch(1, 64, num_classes=80), optimizer)
    assert all(torch.isfinite(value).all() for value in logs.values())
    assert not torch.equal(parameter, before)
    assert any(name.startswith('distill.') and value > 0 for name, value in logs.items())
