"""Pictures without labels: which files they are, what a pipeline makes of them, in what batches they come."""
import copy
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from mmengine.registry import DATA_SAMPLERS, DATASETS, DefaultScope
from PIL import Image
from tiny import run_config, segmentor

from mmseg_kd.datasets.mixed_batches import add_unlabelled, check_mixed_batches

AUGMENTED = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(64, 32), ratio_range=(.5, 2.), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(24, 48), cat_max_ratio=.75), dict(type='RandomRotate', prob=1., degree=10),
    dict(type='RandomFlip', prob=.5), dict(type='RandomCutOut', prob=1., n_holes=1, cutout_shape=(4, 4),
                                           seg_fill_in=255),
    dict(type='PhotoMetricDistortion'), dict(type='GenerateEdge', edge_width=4), dict(type='PackSegInputs')]


def picture(path, size=(32, 64), kind=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(values).save(path, kind)
    return path


@pytest.fixture
def folder(tmp_path):
    """Five pictures at several depths, and what is none."""
    root = tmp_path / 'pictures'
    picture(root / 'b.JPG')
    picture(root / 'a/a.webp')
    picture(root / 'a/b/c/d.bmp')
    picture(root / 'a/nameless', kind='PNG')
    picture(root / 'a/odd.frame', kind='JPEG')
    picture(root / '.hidden/e.png')
    (root / '._b.JPG').write_bytes(b'resource fork')
    (root / 'readme.txt').write_text('words')
    return root


def build(config):
    with DefaultScope.overwrite_default_scope('mmseg'):
        return DATASETS.build(copy.deepcopy(config))


def alone(**settings):
    return build(dict(type='mmseg_kd.UnlabelledDataset', pipeline=AUGMENTED) | settings)


def mixed(data_root, unlabelled, pipeline=None, **labelled):
    config = run_config(segmentor(), data_root).train_dataloader.dataset
    if pipeline is not None:
        config.pipeline = pipeline
    config.update(labelled)
    return dict(type='mmseg_kd.WithUnlabelled', labelled=config, unlabelled=unlabelled)


def test_pictures_of_any_depth_and_name(folder):
    dataset = alone(data_root=str(folder))
    found = [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]
    assert found == [str(folder / name) for name in ('a/a.webp', 'a/b/c/d.bmp', 'a/nameless', 'a/odd.frame', 'b.JPG')]


def test_the_students_pipeline_serves_them_without_labels(folder):
    dataset = pickle.loads(pickle.dumps(alone(data_root=str(folder))))  # as a spawned loader worker gets it
    sizes = set()
    for index in range(len(dataset)):
        sample = dataset[index]
        label = sample['data_samples'].gt_sem_seg.data
        assert label.shape[1:] == sample['inputs'].shape[1:] and (label == 255).all()
        assert sample['data_samples'].metainfo['unlabelled'] is True
        sizes.add(tuple(sample['inputs'].shape))
    assert max(sizes) <= (3, 24, 48)


def test_the_crop_asks_for_no_classes_also_inside_of_another_transform(folder):
    crop = dict(type='RandomCrop', crop_size=(24, 48), cat_max_ratio=.75)
    dataset = alone(data_root=str(folder), pipeline=[
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
        dict(type='RandomChoice', transforms=[[crop], [crop]]), dict(type='PackSegInputs')])
    choices = dataset.pipeline.transforms[2].transforms
    assert [each.transforms[0].cat_max_ratio for each in choices] == [1., 1.]


def test_a_list_of_files(folder, tmp_path):
    (tmp_path / 'list.txt').write_text('b.JPG\na/a.webp\n')
    for files in (['b.JPG', 'a/a.webp'], str(tmp_path / 'list.txt')):
        dataset = alone(data_root=str(folder), files=files)
        assert [dataset.get_data_info(index)['img_path'] for index in range(2)] == [
            str(folder / 'b.JPG'), str(folder / 'a/a.webp')]


def test_pictures_with_labels_are_left_out(mini_cityscapes):
    dataset = build(mixed(mini_cityscapes, dict(data_root=str(mini_cityscapes / 'leftImg8bit')), indices=[0, 5]))
    assert (len(dataset.labelled), len(dataset.unlabelled), len(dataset)) == (2, 12 + 4 - 2, 16)
    files = {dataset.get_data_info(index)['img_path'] for index in range(16)}
    assert len(files) == 16
    assert dataset.metainfo['classes'][:2] == ('road', 'sidewalk')
    marked = ['unlabelled' in dataset[index]['data_samples'].metainfo for index in range(16)]
    assert marked == [False] * 2 + [True] * 14


def test_a_repeated_data_set_lends_its_pipeline(mini_cityscapes, folder):
    config = mixed(mini_cityscapes, dict(data_root=str(folder)))
    config['labelled'] = dict(type='RepeatDataset', times=3, dataset=config['labelled'])
    dataset = build(config)
    assert len(dataset) == 36 + 5
    assert dataset[36]['data_samples'].metainfo['unlabelled']


@pytest.mark.parametrize('settings, message', [
    (dict(data_root='{}/nowhere'), r'`unlabelled.data_root`: expected a folder.*does not exist'),
    (dict(data_root='{}/b.JPG'), r'is a file'),
    (dict(data_root='{}/empty'), r'holds no picture at any depth, nothing'),
    (dict(data_root='{}/words'), r"holds no picture at any depth, only \{'.txt': 1\}"),
    (dict(data_root='{}/spoiled'), r"1 of 2 files are no pictures that OpenCV reads: .*page.jpg"),
    (dict(data_root='{}', files=['b.JPG', 'c.JPG']), r'`unlabelled.files`: 1 of 2 files do not exist.*c.JPG'),
    (dict(files='{}/no.txt'), r'`unlabelled.files`: expected a list of paths or a text file'),
    (dict(files=[]), r'`unlabelled.files`: expected paths of pictures, got an empty list'),
    ({}, r'`unlabelled`: expected dict\(data_root=FOLDER\)'),
    (dict(data_root='{}', leave_out=['{}/b.JPG', '{}/a/a.webp', '{}/a/b/c/d.bmp', '{}/a/nameless', '{}/a/odd.frame']),
     r'all 5 pictures have labels')])
def test_refusals_of_files(folder, settings, message):
    (folder.parent / 'other/empty').mkdir(parents=True)
    root = folder if 'leave_out' in settings or settings.get('data_root') == '{}' else folder.parent / 'other'
    picture(root / 'b.JPG')
    (root / 'words').mkdir(exist_ok=True)
    (root / 'words/list.txt').write_text('b.JPG')
    picture(folder.parent / 'other/spoiled/good.jpg')
    (folder.parent / 'other/spoiled/page.jpg').write_text('<html>404</html>')

    def filled(value):
        return [filled(each) for each in value] if isinstance(value, list) else value.replace('{}', str(root))

    with pytest.raises(ValueError, match=f'(?s){message}'):
        alone(**{name: filled(value) for name, value in settings.items()})


def test_refusals_of_data_sets(mini_cityscapes, folder):
    config = mixed(mini_cityscapes, dict(data_root=str(folder)))
    with pytest.raises(ValueError, match='takes `labelled` and `unlabelled`, got .*_delete_=True'):
        build(config | dict(data_root='x'))
    with pytest.raises(ValueError, match=r"expected unlabelled=dict\(\.\.\.\), the config of a data set, got 'x'"):
        build(config | dict(unlabelled='x'))
    mosaic = dict(type='MultiImageMixDataset', dataset=config['labelled'], pipeline=[dict(type='PackSegInputs')])
    with pytest.raises(ValueError, match='no pipeline for single pictures in `labelled`'):
        build(config | dict(labelled=mosaic))
    with pytest.raises(ValueError, match='`unlabelled.pipeline`: expected the training pipeline'):
        alone(data_root=str(folder), pipeline=[dict(type='LoadImageFromFile')])[0]


class Sized(list):
    """As much of a WithUnlabelled as a sampler sees."""

    def __init__(self, labelled, unlabelled):
        super().__init__(range(labelled + unlabelled))
        self.labelled, self.unlabelled = range(labelled), range(unlabelled)


def sampler(sizes=(5, 30), labelled=2, unlabelled=3, rank=0, processes=1, **settings):
    config = dict(type='mmseg_kd.MixedSampler', labelled=labelled, unlabelled=unlabelled, **settings)
    built = DATA_SAMPLERS.build(config, default_args=dict(dataset=Sized(*sizes), seed=7))
    built.rank, built.processes = rank, processes
    return built


def take(built, number):
    stream = iter(built)
    return [next(stream) for _ in range(number)]


@pytest.mark.parametrize('processes', [1, 2, 3])
def test_every_batch_has_its_numbers_and_each_source_its_own_turns(processes):
    batches = 60 // processes
    streams = [take(sampler(rank=rank, processes=processes), 5 * batches) for rank in range(processes)]
    for stream in streams:
        for batch in np.array(stream).reshape(batches, 5):
            assert [index < 5 for index in batch] == [True, True, False, False, False]
    drawn = Counter(index for stream in streams for index in stream)
    # 120 labelled and 180 unlabelled draws: every picture of a source exactly as often as any other.
    assert {drawn[index] for index in range(5)} == {24} and {drawn[index] for index in range(5, 35)} == {6}
    joined = np.stack([np.array(stream).reshape(batches, 5) for stream in streams], 1)
    turns = joined[..., 2:].transpose(0, 2, 1).reshape(6, 30)
    assert all(sorted(turn) == list(range(5, 35)) for turn in turns) and len({tuple(turn) for turn in turns}) == 6


@pytest.mark.parametrize('position', [0, 3, 5, 10, 143, 1000])
def test_it_can_be_entered_anywhere(position):
    entered = sampler(rank=1, processes=2)
    entered.skip(position)
    assert take(entered, 40) == take(sampler(rank=1, processes=2), position + 40)[position:]


def test_a_loader_that_is_iterated_anew_goes_on():
    built, whole = sampler(), take(sampler(), 20)
    assert take(built, 10) + take(built, 10) == whole


def test_epochs_go_through_the_labelled_pictures_and_on_through_the_others():
    built = sampler(by_epoch=True)
    assert len(built) == 15  # three batches show five labelled pictures
    epochs = []
    for epoch in range(20):
        built.set_epoch(epoch)
        epochs.append(list(built))
    assert all(len(epoch) == 15 for epoch in epochs) and sorted(set(i for i in epochs[0] if i < 5)) == list(range(5))
    assert [index for epoch in epochs for index in epoch] == take(sampler(), 300)
    assert len(sampler(labelled=0, by_epoch=True)) == 30


def test_order_without_shuffling():
    assert take(sampler(shuffle=False), 10) == [0, 1, 5, 6, 7, 2, 3, 8, 9, 10]


def test_refusals_of_samplers():
    with pytest.raises(ValueError, match='draws from .*WithUnlabelled.*got list'):
        DATA_SAMPLERS.build(dict(type='mmseg_kd.MixedSampler', labelled=1, unlabelled=1, dataset=[1], seed=0))
    with pytest.raises(ValueError, match='`train_dataloader.sampler.labelled`: expected a whole number >= 0, got -1'):
        sampler(labelled=-1)
    with pytest.raises(ValueError, match='labelled . unlabelled > 0'):
        sampler(labelled=0, unlabelled=0)


def distilled_config(data_root, **loader):
    config = run_config(dict(type='mmseg_kd.DistilledEncoderDecoder', distill=dict(
        kd=dict(loss=dict(type='mmseg_kd.KDLoss')), old=dict(loss=dict(type='mmseg_kd.KDLoss'), positions='labelled'))),
        data_root)
    config.train_dataloader.update(batch_size=4, **loader)
    return config


def test_the_command_line_changes_a_config(mini_cityscapes, folder):
    config = distilled_config(mini_cityscapes)
    before = copy.deepcopy(config.train_dataloader.dataset)
    add_unlabelled(config, str(folder), .25, {})
    check_mixed_batches(config)
    assert config.train_dataloader.dataset == dict(
        type='mmseg_kd.WithUnlabelled', labelled=before, unlabelled=dict(data_root=str(folder)))
    assert config.train_dataloader.sampler == dict(
        type='mmseg_kd.MixedSampler', labelled=3, unlabelled=1, by_epoch=False)
    assert [term.positions for term in config.model.distill.values()] == ['all', 'labelled']
    without = distilled_config(mini_cityscapes)
    add_unlabelled(without, str(folder), 1., dict(classes=['a', 'b']))
    dataset = build(without.train_dataloader.dataset)
    assert len(dataset) == 5 and dataset.metainfo['classes'] == ['a', 'b']
    assert without.train_dataloader.sampler.type == 'InfiniteSampler'


def test_refusals_of_the_command_line(mini_cityscapes, folder):
    config = distilled_config(mini_cityscapes)
    for share in (0, 1.5, .05, .95):
        with pytest.raises(ValueError, match='`--unlabelled-share`: expected a share'):
            add_unlabelled(config, str(folder), share, {})
    with pytest.raises(ValueError, match='`--unlabelled`: expected a folder'):
        add_unlabelled(config, str(folder / 'no'), .5, {})
    with pytest.raises(ValueError, match='`--unlabelled`: a teacher speaks about'):
        add_unlabelled(run_config(segmentor(), mini_cityscapes), str(folder), .5, {})
    add_unlabelled(config, str(folder), .5, {})
    with pytest.raises(ValueError, match='unlabelled pictures already'):
        add_unlabelled(config, str(folder), .5, {})
    config.train_dataloader.batch_size = 6
    with pytest.raises(ValueError, match='`train_dataloader.batch_size`: expected 4, the sum'):
        check_mixed_batches(config)
    config.train_dataloader.batch_size = 4
    config.train_cfg = dict(by_epoch=True, max_epochs=1)
    with pytest.raises(ValueError, match='`train_dataloader.sampler.by_epoch`: expected True'):
        check_mixed_batches(config)


def test_batches_as_mmsegs_own_preprocessor_makes_them(mini_cityscapes, folder):
    """Pictures of several sizes, padded to one; a plain student of mmseg takes them, too."""
    from tiny import build as build_model
    dataset = build(mixed(mini_cityscapes, dict(data_root=str(folder)), pipeline=AUGMENTED))
    samples = [dataset[index] for index in (0, 1, 12, 13)]
    data = dict(inputs=[each['inputs'] for each in samples], data_samples=[each['data_samples'] for each in samples])
    model = build_model(segmentor()).train()
    data = model.data_preprocessor(data, True)
    assert data['inputs'].shape == (4, 3, 32, 64)
    losses = model.loss(**data)
    assert torch.isfinite(losses['decode.loss_ce'])
