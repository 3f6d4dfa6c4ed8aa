"""Neural collapse of a classifier, whose preprocessor lies beside the model in its config."""
import json

import numpy as np
import pytest
import tiny
import torch
from mmengine.config import Config

pytestmark = pytest.mark.cls


def test_features_are_those_of_normalized_images(tmp_path):
    from mmengine.registry import DATASETS, DefaultScope
    from mmpretrain.registry import MODELS
    config = Config.fromfile(tiny.ROOT / 'configs/demo/resnet8x4_digits-8x8.py')
    config.train_dataloader.dataset.per_class = 6
    assert 'data_preprocessor' not in config.model
    tiny.write_run(tmp_path / 'run', config, [dict(loss=1., time=1., step=3), {'accuracy/top1': 30., 'step': 3}])
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(config.model).eval()
        dataset = DATASETS.build(config.train_dataloader.dataset | dict(
            pipeline=config.val_dataloader.dataset.pipeline))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'run/iter_3.pth')
    tiny.command('tools/analysis/neural_collapse.py', tmp_path / 'run', '--out', tmp_path / 'out')
    run, = json.loads((tmp_path / 'out/collapse.json').read_text())['runs']

    images = torch.stack([item['inputs'] for item in dataset]).float()
    labels = np.array([item['data_samples'].gt_label.item() for item in dataset])
    mean, std = (torch.tensor(config.data_preprocessor[name]).view(1, 3, 1, 1) for name in ('mean', 'std'))
    features = []
    model.head.fc.register_forward_pre_hook(lambda module, args: features.append(args[0].detach().double().numpy()))
    model((images - mean) / std, mode='tensor')
    assert run['features_of_class'] == [6] * 10 and run['metric'] == 'accuracy/top1' and run['step'] == [3]
    means = np.array([features[0][labels == c].mean(0) for c in range(10)])
    spread = np.mean([np.square(features[0][labels == c] - means[c]).sum(1).mean() for c in range(10)])
    assert run['nc1_trace'] == [pytest.approx(spread / np.square(means - means.mean(0)).sum(1).mean(), rel=1e-4)]
