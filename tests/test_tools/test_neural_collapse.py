"""Neural collapse over the checkpoints of a run, against NumPy on features collected by hand."""
import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

STEPS = (2, 10, 4)


@pytest.fixture(scope='module')
def result(mini_cityscapes, tmp_path_factory):
    """A run of three checkpoints with random weights, measured through the command line; the run and the output."""
    root = tmp_path_factory.mktemp('collapse')
    config = tiny.run_config(tiny.segmentor(), mini_cityscapes)
    records = [dict(loss=1., time=1., step=2), dict(mIoU=3., step=4), dict(mIoU=5., step=10)]
    tiny.write_run(root / 'run', config, records)
    for seed, step in enumerate(STEPS):
        torch.save(dict(state_dict=tiny.build(config.model, seed).state_dict()), root / f'run/iter_{step}.pth')
    (root / 'run/best_mIoU_iter_4.pth').write_text('not of the training')
    # 32 positions in an image and all of them taken, so that no chance is left.
    tiny.command('tools/analysis/neural_collapse.py', f'one={root}/run', f'again={root}/run', '--split', 'val',
                 '--out', root / 'out')
    return root, config


def collected(model, dataset):
    """Features (n, D) at the input of conv_seg and labels (n,) of all positions, nearest to each feature."""
    features, labels = [], []
    handle = model.decode_head.conv_seg.register_forward_pre_hook(
        lambda module, args: features.append(args[0].detach()))
    for item in dataset:
        model.val_step(dict(inputs=[item['inputs']], data_samples=[item['data_samples']]))
        labels.append(item['data_samples'].gt_sem_seg.data[0, ::8, ::8].flatten())
    handle.remove()
    features = torch.cat([each[0].flatten(1).T for each in features]).double().numpy()
    labels = torch.cat(labels).numpy()
    return features[labels != 255], labels[labels != 255]


def test_every_checkpoint_is_measured(result, mini_cityscapes):
    from mmengine.registry import DATASETS
    root, config = result
    found = json.loads((root / 'out/collapse.json').read_text())
    run = found['runs'][0]
    assert run['step'] == sorted(STEPS) and run['score'] == [[4, 5 - 2.], [10, 5.]]
    dataset = DATASETS.build({**config.val_dataloader.dataset, '_scope_': 'mmseg'})
    model = tiny.build(config.model).eval()
    for position, step in enumerate(run['step']):
        model.load_state_dict(torch.load(root / f'run/iter_{step}.pth')['state_dict'])
        features, labels = collected(model, dataset)
        classes = np.unique(labels)
        means = np.array([features[labels == c].mean(0) for c in classes])
        spread = np.mean([np.square(features[labels == c] - mean).sum(1).mean()
                          for c, mean in zip(classes, means, strict=True)])
        between = np.square(means - means.mean(0)).sum(1).mean()
        assert run['nc1_trace'][position] == pytest.approx(spread / between, rel=1e-4)
        weight, bias = (each.detach().double().numpy() for each in model.decode_head.conv_seg.parameters())
        decided = (features @ weight[:, :, 0, 0].T + bias).argmax(1)
        nearest = classes[np.square(features[:, None] - means).sum(2).argmin(1)]
        differ = np.mean([(decided != nearest)[labels == c].mean() for c in classes])
        assert run['nc4'][position] == pytest.approx(differ, abs=1e-9)
    counted = np.bincount(labels, minlength=19)
    assert run['features_of_class'] == counted.tolist() and 1 < (counted > 0).sum() < 19
    assert len(set(run['nc1_trace'])) == 3


@pytest.mark.parametrize('padding, scale, rows, columns', [
    (dict(size_divisor=40), None, slice(0, 32, 8), slice(0, 64, 8)),
    (None, (128, 64), slice(0, 32, 4), slice(0, 64, 4)),
    (dict(size=(72, 136)), (128, 64), slice(0, 32, 4), slice(0, 64, 4))], ids=['padded', 'resized', 'both'])
def test_labels_stay_at_their_own_pixels(mini_cityscapes, monkeypatch, padding, scale, rows, columns):
    """Where the model pads pictures or the pipeline resizes them: padding has no label, and nothing is stretched."""
    from mmengine.registry import DATASETS
    spec = spec_from_file_location('tool', tiny.ROOT / 'tools/analysis/neural_collapse.py')
    tool = module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(tool, 'PER_IMAGE', 10**6)
    settings = tiny.segmentor()
    if padding:
        settings['data_preprocessor'] = tiny.preprocessor(test_cfg=padding)
    config = tiny.run_config(settings, mini_cityscapes)
    if scale:
        config.val_dataloader.dataset.pipeline.insert(1, dict(type='Resize', scale=scale))
    model = tiny.build(config.model).eval()
    items = list(DATASETS.build({**config.val_dataloader.dataset, '_scope_': 'mmseg'}))
    features, labels = tool.features_of(model, items, 10**6)
    expected = []
    for item in items:
        picture = model.data_preprocessor.mean.new_tensor(item['inputs'].flip(0).numpy())
        picture = (picture - model.data_preprocessor.mean) / model.data_preprocessor.std
        height, width = picture.shape[1:]
        if padding:
            bottom, right = (40, 80) if scale is None else (72, 136)
            picture = torch.nn.functional.pad(picture, (0, right - width, 0, bottom - height))
        head = model.decode_head
        with torch.no_grad():
            feature = head._forward_feature(model.extract_feat(picture[None]))[0, :, :height // 8, :width // 8]
        label = item['data_samples'].gt_sem_seg.data[0, rows, columns]
        expected += [(int(label[y, x]), feature[:, y, x]) for y, x in (label != 255).nonzero().tolist()]
    assert len(expected) == len(labels) > 50
    for label in set(labels.tolist()):
        found = features[labels == label].sum(0)
        torch.testing.assert_close(found, sum(each for of, each in expected if of == label), rtol=1e-4, atol=1e-5)
    assert sorted(labels.tolist()) == sorted(label for label, _ in expected)


def test_the_same_run_twice_is_the_same(result):
    root, _ = result
    one, again = json.loads((root / 'out/collapse.json').read_text())['runs']
    assert one['name'] == 'one' and again['name'] == 'again'
    assert one['nc1'] == again['nc1'] and one['nc3'] == again['nc3']


def test_table_and_figures(result):
    root, _ = result
    one = json.loads((root / 'out/collapse.json').read_text())['runs'][0]
    rows = [line for line in (root / 'out/collapse.md').read_text().splitlines() if line.startswith('| one |')]
    names = ('nc1', 'nc1_trace', 'nc2_norm', 'nc2_angle', 'nc3', 'nc4')
    ends = [f'{one[name][-1]:.3g}' for name in names]
    first = [str(next(step for step, value in zip(one['step'], one[name], strict=True) if value <= one[name][-1]))
             for name in names]
    assert rows == [f"| one | 5.00 | {' | '.join(ends)} |", f"| one | {' | '.join(first)} |"]
    assert set(first) != {'10'}  # some came there before the end
    assert all(Path(root / 'out' / name).stat().st_size > 10000 for name in ('collapse.png', 'collapse_classes.png'))
