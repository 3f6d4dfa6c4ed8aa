"""The page that leads from a paper to its config, and GDKD's published Cityscapes setting."""
import re

import pytest
import torch
from test_zoo_steps import network, pictures, read_for_a_step
from tiny import ROOT
from torch.nn import functional as F
from zoo import GRAMMAR, PUBLISHED, pair_of, parse, read

LOSSES = dict(
    kd=dict(type='mmseg_kd.KDLoss', temperature=1), dkd=dict(type='mmseg_kd.DKDLoss', alpha=1, beta=2, temperature=1),
    gdkd=dict(type='mmseg_kd.GDKDLoss', k=3, w0=1, w1=1, w2=2, temperature=1),
    gdkd3=dict(type='mmseg_kd.GDKD3Loss', k=3, w0=1, w1=1, w2=2, temperature=1))
PAIRS = [('deeplabv3-r101-d8', student, 'cityscapes') for student in ('deeplabv3-r18-d8', 'pspnet-r18-d8')]


def test_every_config_that_the_page_of_papers_names_is_there():
    names = re.findall(r'`((?:cls|seg|det)/[^`]+)`', (ROOT / 'docs/papers.md').read_text())
    assert len(names) > 30
    for name in names:
        patterns = [name.replace('<pair>', '*')]
        while '{' in patterns[0]:  # alternatives, as a shell has them
            patterns = [pattern.replace(found[0], choice, 1) for pattern in patterns
                        for found in [re.search(r'{([^}]+)}', pattern)] for choice in found[1].split(',')]
        for pattern in patterns:
            found = [*(ROOT / 'configs').glob(pattern)]
            assert found and all(path.suffix == '.py' or path.is_dir() for path in found), pattern


def test_there_is_one_of_each():
    assert {(parse(path)['method'].removesuffix('-published'), pair_of(path)) for path in PUBLISHED} == {
        (method, pair) for method in LOSSES for pair in PAIRS}
    assert all(GRAMMAR.fullmatch(path.stem) and path.parent.name == path.name.split('-')[0] for path in PUBLISHED)


@pytest.mark.parametrize('path', PUBLISHED, ids=lambda path: path.stem)
def test_settings(path):
    config, method = read(path), path.parent.name
    places = dict(size='head') if method == 'dkd' else dict(size='head', positions='all')
    assert config.model.distill == {
        method: dict(loss=LOSSES[method], **places),
        'auxiliary': dict(loss=dict(LOSSES[method], loss_weight=0.4), on='auxiliary_head', **places)}
    assert config.optim_wrapper == dict(type='OptimWrapper', clip_grad=None, optimizer=dict(
        type='SGD', lr=0.02, momentum=0.9, weight_decay=5e-4))
    assert config.param_scheduler == [
        dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end=40000, by_epoch=False)]
    assert config.train_cfg.max_iters == 40000 and config.train_dataloader.batch_size == 2  # of 8 GPUs
    assert config.model.data_preprocessor.size == [512, 1024]
    assert config.model.auxiliary_head.loss_decode.loss_weight == 0.4
    assert 'deeplabv3_r101' in config.model.teacher.config


def test_terms_are_the_published_loss_of_all_pixels_at_the_heads_size():
    """KD of real networks: the mean over all pixels of both small maps, labelled or not, by the formula in float64."""
    path = next(path for path in PUBLISHED if path.parent.name == 'kd' and 'pspnet' in path.name)
    model = network(read_for_a_step(path))
    for head in (model.decode_head, model.auxiliary_head):
        head.dropout = None
    data = model.data_preprocessor(pictures(19), True)
    data['data_samples'][0].gt_sem_seg.data[:, :32] = 255  # without labels, and counted
    maps = model.extract_feat(data['inputs'])
    with torch.no_grad():
        teacher = model.teacher.model
        of_teacher = teacher.extract_feat(data['inputs'])
        losses = model(**data, mode='loss')
        for name, weight, head in (('kd', 1., 'decode_head'), ('auxiliary', 0.4, 'auxiliary_head')):
            z, v = (getattr(each, head).forward(of).double().log_softmax(1)
                    for each, of in ((model, maps), (teacher, of_teacher)))
            assert z.shape == v.shape == (2, 19, 8, 8)
            expected = weight * F.kl_div(z, v, reduction='none', log_target=True).sum(1).mean()
            assert losses[f'distill.loss_{name}'].item() == pytest.approx(expected.item(), rel=1e-4)
