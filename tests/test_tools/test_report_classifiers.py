"""The report on classifiers, from work dirs on digits, against the same numbers computed here."""
import re

import numpy as np
import pytest
import tiny
import torch
from mmengine.config import Config

pytest.importorskip('mmpretrain', reason='needs the extra "cls": bash tools/test.sh --all')
pytestmark = pytest.mark.cls
DEMO = tiny.ROOT / 'configs/demo'
FIGURES = ['calibration', 'class_accuracy', 'confusion', 'curves', 'logit_distance', 'statistics', 'topk_mass']


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Work dirs of a teacher, a student alone and a distilled one; of each its model."""
    from tiny_cls import build_classifier
    root, models = tmp_path_factory.mktemp('runs'), {}
    sources = dict(teacher='resnet20_digits-8x8', alone='resnet8_digits-8x8', dkd='dkd_resnet20_resnet8_digits-8x8')
    for seed, (name, source) in enumerate(sources.items()):
        config = Config.fromfile(DEMO / f'{source}.py')
        plain = sources['teacher' if name == 'teacher' else 'alone']
        model = build_classifier(Config.fromfile(DEMO / f'{plain}.py').model | dict(
            data_preprocessor=config.data_preprocessor), seed).eval()
        with torch.no_grad():  # of more than one mind
            torch.nn.init.normal_(model.head.fc.weight, std=3.)
        if name == 'dkd':
            config.model.teacher.update(checkpoint=str(root / 'teacher/iter_8.pth'))
        records = [{'loss': 3., 'loss_cls': 2., 'time': 0.1, 'step': 4}, {'accuracy/top1': 11., 'step': 1},
                   {'loss': 2., 'loss_cls': 1., 'time': 0.1, 'step': 8}, {'accuracy/top1': 12., 'step': 2}]
        if name == 'dkd':
            records += [{'distill.target_dkd': 0.5, 'distill.supervised_cosine_dkd': 0.5, 'step': step}
                        for step in (4, 8)]
        tiny.write_run(root / name, config, records)
        torch.save(dict(state_dict=model.state_dict()), root / name / 'iter_8.pth')
        models[name] = model
    return root, models


def logits_and_labels(model, config, shift=None):
    from mmengine.registry import DefaultScope
    from mmpretrain.registry import DATASETS
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pipeline = [dict(type=f'mmseg_kd.{shift}')] * (shift is not None) + config.val_dataloader.dataset.pipeline
        items = list(DATASETS.build(dict(config.val_dataloader.dataset, pipeline=pipeline)))
    data = model.data_preprocessor(dict(inputs=[item['inputs'] for item in items]), False)
    with torch.no_grad():
        logits = model(data['inputs'], mode='tensor').double().numpy()
    return logits, np.array([item['data_samples'].gt_label.item() for item in items])


def test_the_page_of_classifiers(runs, tmp_path):
    root, models = runs
    tiny.command('tools/analysis/report.py', f'T={root}/teacher', f'alone={root}/alone', f'DKD={root}/dkd', '--shifted',
                 'noised', 'scrambled', '--out', tmp_path)
    html = (tmp_path / 'report.html').read_text()
    assert sorted(path.stem for path in tmp_path.glob('*.png')) == FIGURES
    assert 'pixel' not in re.sub(r'<style>.*?</style>|<svg.*?</svg>', '', html, flags=re.DOTALL)
    config = Config.fromfile(DEMO / 'resnet8_digits-8x8.py')
    found = {name: logits_and_labels(model, config) for name, model in models.items()}
    of_teacher = found['teacher'][0]
    rows = {name: re.search(rf'<i></i>{name}</td>(.*?)</tr>', html)[1]
            for name in ('T', 'alone', 'DKD')}
    for name, key in dict(T='teacher', alone='alone', DKD='dkd').items():
        cells = re.findall(r'<td>(.*?)</td>', rows[name])
        logits, labels = found[key]
        predicted = logits.argmax(1)
        assert cells[0] == f'{100 * (predicted == labels).mean():.2f}'
        if name != 'T':
            assert cells[2] == f'{100 * (predicted == of_teacher.argmax(1)).mean():.1f}'
            assert float(cells[3]) == pytest.approx(((logits - of_teacher)**2).mean(), rel=1e-4)
        assert cells[6] == '8'
    # The second table: as they are, with noise on a part, with their parts in another order.
    for name, key in dict(alone='alone', DKD='dkd').items():
        cells = re.findall(rf'<i></i>{name}</td><td>([\d.]+)</td><td>([\d.]+)</td><td>([\d.]+)</td></tr>', html)[0]
        expected = [100 * (logits.argmax(1) == labels).mean() for logits, labels in (
            logits_and_labels(models[key], config, shift) for shift in (None, 'NoisyPatch', 'ScrambledPatches'))]
        assert [float(cell) for cell in cells] == pytest.approx(expected, abs=0.01)
    # A run by epochs: its two validations stand where its steps do.
    assert 'DKD ends highest' in html or 'alone ends highest' in html
    assert 'Distillation and labels pull the same way in every recorded step' in html


def test_only_classes_that_changed_most_are_drawn_of_many():
    from mmseg_kd.visualization.report_classifiers import MOST_CLASSES, _most_changed
    change = np.zeros(1000)
    change[[3, 500, 999]] = 5, -7, np.nan
    chosen = _most_changed(change)
    assert len(chosen) == MOST_CLASSES and chosen == sorted(chosen) and {3, 500} <= set(chosen)
    assert _most_changed(np.ones(10)) == list(range(10))
