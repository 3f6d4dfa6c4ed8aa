"""The table of k per class, through the command line, against explicit loops over the same pixels."""
import json
import shutil
from importlib.util import module_from_spec, spec_from_file_location

import made_up_queries  # noqa: F401 (registers heads)
import numpy as np
import pytest
import tiny
import torch
from mmengine.config import Config

from mmseg_kd.evaluation.predictions import build_loader
from mmseg_kd.losses import GDKDLoss

TOOL = 'tools/analysis/measure_topk.py'


@pytest.fixture(scope='module')
def teacher(mini_cityscapes, tmp_path_factory):
    """Config file, checkpoint and model of a small random teacher whose logits are spread enough to prefer classes."""
    folder = tmp_path_factory.mktemp('teacher')
    config = tiny.run_config(tiny.segmentor(), mini_cityscapes)
    config.dump(folder / 'teacher.py')
    model = tiny.build(config.model)
    spread = torch.stack([logits.std() for logits, _ in _images(model.eval(), config)]).mean()
    with torch.no_grad():
        model.decode_head.conv_seg.weight.mul_(2. / spread)
    torch.save(dict(state_dict=model.state_dict()), folder / 'teacher.pth')
    return folder, model, config


def _images(model, config):
    """Logits (C, H, W) and labels of the validation images."""
    from mmengine.registry import DATASETS
    dataset = DATASETS.build({**config.val_dataloader.dataset, '_scope_': 'mmseg'})
    for item in dataset:
        data = model.data_preprocessor(dict(inputs=[item['inputs']], data_samples=[item['data_samples']]), False)
        with torch.no_grad():
            logits = model.encode_decode(data['inputs'], [item['data_samples'].metainfo])[0]
        yield logits, item['data_samples'].gt_sem_seg.data[0]


def _mean_distributions(model, config):
    """By label: the probabilities averaged over its pixels, and their number."""
    total, pixels = np.zeros((19, 19)), np.zeros(19, dtype=int)
    for logits, labels in list(_images(model, config))[:2]:
        for p, label in zip(logits.double().softmax(0).flatten(1).T.numpy(), labels.flatten().tolist(), strict=True):
            if label != 255:
                total[label] += p
                pixels[label] += 1
    everything = total.sum(0) / pixels.sum()
    return [total[c] / pixels[c] if pixels[c] else everything for c in range(19)], pixels


def _by_mass(p, mass, k_max):
    k, held = 0, 0.
    while k < k_max and (k == 0 or held < mass):
        held += sorted(p, reverse=True)[k]
        k += 1
    return k


def test_measures_the_table_that_gdkd_reads(teacher, tmp_path):
    folder, model, config = teacher
    out = tmp_path / 'new' / 'table.json'
    done = tiny.command(TOOL, folder / 'teacher.py', folder / 'teacher.pth', '--out', out, '--mass', 0.8, '--k-max', 9,
                        '--images', 2, '--split', 'val')
    table = json.loads(out.read_text())
    distributions, pixels = _mean_distributions(model, config)
    assert 1 < (pixels > 0).sum() < 19  # some classes are there, some are not
    expected = [_by_mass(p, 0.8, 9) for p in distributions]
    assert len(set(expected)) > 1
    assert table['k'] == expected
    assert table['positions'] == pixels.tolist()
    assert table['rule'] == dict(mass=0.8) and table['k_max'] == 9 and table['temperature'] == 1
    for c, p in enumerate(distributions):
        ordered = sorted(p, reverse=True)
        assert table['mass_of_first'][c] == pytest.approx(ordered[0], rel=1e-5)
        assert table['mass_of_k'][c] == pytest.approx(sum(ordered[:expected[c]]), rel=1e-5)
    row = f"| road | {expected[0]} | {table['mass_of_k'][0]:.3f} | {max(distributions[0]):.3f} | {pixels[0]} |"
    assert row in done.stdout and row in out.with_suffix('.md').read_text()
    loss = GDKDLoss(k=str(out))
    assert loss.k == tuple(table['k'])
    assert loss(torch.randn(2, 19), torch.randn(2, 19), torch.tensor([0, 18])).isfinite()


@pytest.mark.parametrize('case', ['padded', 'resized', 'queries'])
def test_measures_what_mmseg_evaluates(mini_cityscapes, case):
    """Its mean distributions against the scores of mmseg's own ``val_step``: a teacher that classifies masks scores by
    probabilities, up to their sum."""
    settings = tiny.segmentor(dilated=case != 'queries')
    if case == 'padded':
        settings['data_preprocessor'] = tiny.preprocessor(test_cfg=dict(size_divisor=48))
    elif case == 'queries':
        settings['decode_head'] = dict(type='MadeUpMask2FormerHead', num_classes=19, in_channels=64)
    config = tiny.run_config(settings, mini_cityscapes)
    if case == 'resized':
        config.val_dataloader.dataset.pipeline.insert(1, dict(type='Resize', scale=(100, 60), keep_ratio=True))
    model = tiny.build(config.model).eval()
    if case != 'queries':
        torch.nn.init.normal_(model.decode_head.conv_seg.weight, std=3.)
    loader = build_loader(config, 'val')
    spec = spec_from_file_location('tool', tiny.ROOT / TOOL)
    tool = module_from_spec(spec)
    spec.loader.exec_module(tool)
    found, positions = tool.mean_distributions(model, loader, 1.)
    total, pixels = torch.zeros(19, 19, dtype=torch.float64), torch.zeros(19, dtype=torch.int64)
    for data in loader:
        with torch.no_grad():
            sample, = model.val_step(data)
        scores, labels = sample.seg_logits.data.double(), sample.gt_sem_seg.data[0]
        probabilities = scores / scores.sum(0) if case == 'queries' else scores.softmax(0)
        for label in labels.unique().tolist():
            if label != 255:
                total[label] += probabilities[:, labels == label].sum(1)
                pixels[label] += (labels == label).sum()
    assert torch.equal(positions, pixels) and (pixels > 0).sum() > 3
    there = pixels > 0
    torch.testing.assert_close(found[there], total[there] / pixels[there, None], rtol=1e-4, atol=1e-6)
    assert found[there].max(1).values.mean() > 0.1  # far from uniform: 1 / 19


def test_measures_a_run_by_ratio(teacher, tmp_path):
    folder, _, config = teacher
    work_dir, out = tmp_path / 'run', tmp_path / 'table.json'
    tiny.write_run(work_dir, config, [dict(loss=1., time=1., step=4), dict(mIoU=1., step=4)])
    shutil.copy(folder / 'teacher.pth', work_dir / 'iter_4.pth')
    tiny.command(TOOL, work_dir, '--out', out, '--ratio', 1.3, '--temperature', 4, '--split', 'val')
    table = json.loads(out.read_text())
    assert table['rule'] == dict(ratio=1.3) and table['temperature'] == 4 and table['split'] == 'val'
    assert 2 * 32 * 64 < sum(table['positions']) <= 4 * 32 * 64
    assert all(1 <= k <= 5 for k in table['k'])


@pytest.mark.cls
def test_measures_a_classifier_on_its_training_pictures(tmp_path):
    """Against the published rule, class by class, on the pictures read here."""
    from mmengine.registry import DefaultScope
    from mmpretrain.registry import DATASETS
    from tiny_cls import build_classifier
    path = tiny.ROOT / 'configs/demo/resnet8_digits-8x8.py'
    config = Config.fromfile(path)
    model = build_classifier(config.model | dict(data_preprocessor=config.data_preprocessor)).eval()
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(config.train_dataloader.dataset | dict(
            pipeline=config.val_dataloader.dataset.pipeline))
    pictures = torch.stack([item['inputs'] for item in dataset])
    with torch.no_grad():  # a classifier of its own mind about each picture, whose features differ little at random
        feature = model.extract_feat(model.data_preprocessor(dict(inputs=list(pictures)), False)['inputs'])[0]
        model.head.fc.weight.copy_(torch.randn(10, 64, generator=torch.Generator().manual_seed(0)) / feature.std(0))
        model.head.fc.bias.copy_(-model.head.fc.weight @ feature.mean(0))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'teacher.pth')
    out = tmp_path / 'table.json'
    tiny.command(TOOL, path, tmp_path / 'teacher.pth', '--out', out, '--ratio', 1.5, '--k-max', 9, '--temperature', 4)
    table = json.loads(out.read_text())
    by_class = {c: [] for c in range(10)}
    for item in dataset:
        data = model.data_preprocessor(dict(inputs=[item['inputs']], data_samples=[item['data_samples']]), False)
        with torch.no_grad():
            logits = model(data['inputs'], mode='tensor')[0].double()
        by_class[item['data_samples'].gt_label.item()].append((logits / 4).softmax(0).numpy())
    assert table['positions'] == [len(each) for each in by_class.values()] and table['split'] == 'train'
    expected = []
    for each in by_class.values():
        p = np.sort(np.mean(each, axis=0))  # ascending, as in the published code
        leading = np.flatnonzero(p / (np.cumsum(p) / np.arange(1, 11)) >= 1.5)
        expected.append(min(9, 10 - leading[0] if len(leading) else 1))
    assert table['k'] == expected and len(set(expected)) > 1
    assert len(table['classes']) == 10
    assert GDKDLoss(k=str(out))(torch.randn(2, 10), torch.randn(2, 10), torch.tensor([0, 9])).isfinite()


def test_refuses(teacher, tmp_path):
    folder, _, _ = teacher
    out = tmp_path / 'table.json'
    done = tiny.command(TOOL, folder / 'teacher.py', folder / 'teacher.pth', '--out', out, '--mass', 1.5, check=False)
    assert done.returncode and '`--mass` must be above 0 and at most 1, got 1.5' in done.stdout
    assert not out.exists()
    done = tiny.command(TOOL, folder / 'teacher.py', '--out', out, check=False)
    assert done.returncode and '`checkpoint` must be given with a config file' in done.stdout
