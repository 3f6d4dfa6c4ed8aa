"""What a run checks when it starts: its data, its teacher, its checkpoints."""
import random
import shutil
import sys
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from PIL import Image
from tiny import ROOT, build, command, distilled, run_config, segmentor
from torch import nn

from mmseg_kd.engine.checkpoint_loading import load_checkpoints_without_code
from mmseg_kd.engine.data_check import refuse_empty_splits

sys.path.insert(0, str(ROOT / 'tests/test_datasets'))
from spoiled import spoil  # noqa: E402


@pytest.fixture
def loaders():
    """mmengine's loaders, put back afterwards."""
    kept = dict(CheckpointLoader._schemes)
    yield
    CheckpointLoader._schemes = kept


def runner_for(data_root, work_dir, *hooks, model=None, max_iters=1, **settings):
    config = run_config(model or segmentor(4), data_root, max_iters=max_iters, work_dir=str(work_dir),
                        custom_hooks=[hook if isinstance(hook, dict) else dict(type=f'mmseg_kd.{hook}')
                                      for hook in hooks], **{'experiment_name': str(work_dir), **settings})
    return Runner.from_cfg(config)


@pytest.mark.parametrize('split, name, message', [
    ('train', 'truncated picture', r'`train_dataloader.dataset`: .*_leftImg8bit.png: cannot be read'),
    ('val', 'truncated labels', r'`val_dataloader.dataset`: .*_labelTrainIds.png: cannot be read'),
    ('train', 'mode of the labels', r'`train_dataloader.dataset`: .*has the mode RGB, expected one channel'),
    ('val', 'size of the labels', r'`val_dataloader.dataset`: .*_labelTrainIds.png: is 30x64, its picture 32x64'),
    ('train', 'labels outside', r'`train_dataloader.dataset`: .*has labels \[19\], expected 0 .. 18 or 255'),
    ('val', 'no label map', r'`val_dataloader.dataset`: .*has no label map, expected '),
])
def test_the_first_batch_of_each_split(mini_cityscapes, tmp_path, split, name, message):
    spoil(mini_cityscapes, tmp_path / 'tree', name, split)
    with pytest.raises(ValueError, match=message):
        runner_for(tmp_path / 'tree', tmp_path / 'run', 'DataCheckHook', 'ExactResumeHook').train()


def test_the_first_unlabelled_pictures(mini_cityscapes, tmp_path):
    """One that is cut off, which OpenCV fills with grey without a word."""
    picture = next((mini_cityscapes / 'leftImg8bit/val').rglob('*.png'))
    (tmp_path / 'more').mkdir()
    (tmp_path / 'more/cut.png').write_bytes(picture.read_bytes()[:-200])
    config = run_config(distilled(segmentor(4), segmentor(4)), mini_cityscapes, work_dir=str(tmp_path),
                        custom_hooks=[dict(type='mmseg_kd.DataCheckHook')], experiment_name=str(tmp_path))
    config.train_dataloader.dataset = dict(
        type='mmseg_kd.WithUnlabelled', labelled=config.train_dataloader.dataset,
        unlabelled=dict(data_root=str(tmp_path / 'more')))
    with pytest.raises(ValueError, match=r'`train_dataloader.dataset.unlabelled`: .*cut.png: cannot be read'):
        Runner.from_cfg(config).train()


def resaved(root, copy, change, ending='.png'):
    """A copy of a tree whose pictures were changed and saved anew."""
    shutil.copytree(root, copy)
    for path in sorted((copy / 'leftImg8bit').rglob('*.png')):
        picture = change(Image.open(path))
        path.unlink()
        picture.save(path.with_suffix(ending))
    return copy


def test_bands_and_bits_are_the_pipelines_affair(mini_cityscapes, tmp_path):
    """RGBA read as colour trains to the bits of RGB; four bands, 16 bits and TIFF train where they are loaded so."""
    def opaque(picture):
        return Image.merge('RGBA', (*picture.split(), Image.new('L', picture.size, 255)))

    def train(root, name, model=None, ending='.png', **loading):
        runner = runner_for(root, tmp_path / name, 'DataCheckHook', 'ExactResumeHook', model=model)
        for loader in (runner._train_dataloader, runner._val_dataloader):
            loader['dataset']['pipeline'][0].update(loading)
            loader['dataset']['img_suffix'] = f'_leftImg8bit{ending}'
        return runner.train().state_dict()
    rgba = resaved(mini_cityscapes, tmp_path / 'rgba', opaque)
    expected, got = train(mini_cityscapes, 'rgb'), train(rgba, 'colour')
    assert all(torch.equal(value, got[name]) for name, value in expected.items())
    four = segmentor(4)
    four['backbone']['in_channels'] = 4
    four['data_preprocessor'] |= dict(mean=[127.], std=[64.], bgr_to_rgb=False)
    config = run_config(four, rgba)
    assert config.train_dataloader.dataset.pipeline[-2].type == 'PhotoMetricDistortion'  # which wants three
    del config.train_dataloader.dataset.pipeline[-2]
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.dataset.pipeline[0].color_type = 'unchanged'
    runner = runner_for(rgba, tmp_path / 'four', 'DataCheckHook', model=four, train_dataloader=config.train_dataloader,
                        val_dataloader=config.val_dataloader)
    assert runner.train().state_dict()['backbone.stem.0.weight'].shape[1] == 4
    deep = resaved(mini_cityscapes, tmp_path / 'deep', lambda picture: Image.fromarray(
        np.asarray(picture.convert('L')).astype(np.uint16) * 257), '.tif')
    assert all(value.isfinite().all() for value in train(deep, 'tif', ending='.tif').values())


def test_a_relative_folder_that_is_missing_was_looked_up_somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = (f'its folder {tmp_path}/data/nowhere/leftImg8bit/train does not exist '
               rf'\(data/nowhere/leftImg8bit/train was looked up in {tmp_path}\)')
    with pytest.raises(ValueError, match=message):
        refuse_empty_splits(run_config(segmentor(4), 'data/nowhere'))


@pytest.mark.parametrize('split', ['train', 'val'])
def test_an_empty_split(mini_cityscapes, tmp_path, split):
    shutil.copytree(mini_cityscapes, tmp_path / 'tree')
    config = run_config(segmentor(4), tmp_path / 'tree')
    refuse_empty_splits(config)
    for path in (tmp_path / 'tree/leftImg8bit' / split).rglob('*.png'):
        path.rename(path.with_suffix('.jpg'))
    message = f'`{split}_dataloader.dataset`: the split is empty, its folder {tmp_path}/tree/leftImg8bit/{split} '
    with pytest.raises(ValueError, match=message + r'holds no file \*_leftImg8bit.png'):
        refuse_empty_splits(config)
    shutil.rmtree(tmp_path / 'tree/leftImg8bit' / split)
    with pytest.raises(ValueError, match=message + 'does not exist'):
        refuse_empty_splits(config)


def test_the_check_changes_nothing(mini_cityscapes, tmp_path):
    """Same weights, and the generators as they were."""
    ends = [runner_for(mini_cityscapes, tmp_path / str(len(hooks)), *hooks, max_iters=2).train().state_dict()
            for hooks in ((), ('DataCheckHook', ))]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    runner = runner_for(mini_cityscapes, tmp_path / 'states', 'DataCheckHook')
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner._val_loop = runner.build_val_loop(runner._val_loop)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    runner.call_hook('before_train')
    assert random.getstate() == before[0] and (np.random.get_state()[1] == before[1]).all()
    assert torch.equal(torch.get_rng_state(), before[2])


class Oracle(nn.Module):
    """Stands in for a teacher: its logits name the labels of the validation pictures, in a given order of classes."""

    def __init__(self, data_root, order):
        super().__init__()
        from PIL import Image
        labels = sorted((data_root / 'gtFine/val').rglob('*_labelTrainIds.png'))
        self.labels = [torch.tensor(np.array(Image.open(path))).long() for path in labels]
        self.order = order
        self.calls = 0
        self.sizes = set()

    def logits(self, model, inputs):
        label = self.labels[self.calls].clone()
        self.calls += 1
        label[label == 255] = 0
        self.sizes.add(tuple(inputs.shape[2:]))
        label = nn.functional.pad(label, (0, inputs.shape[3] - label.shape[1], 0, inputs.shape[2] - label.shape[0]))
        return nn.functional.one_hot(torch.tensor(self.order)[label], 19).permute(2, 0, 1)[None].float()


def teacher_run(data_root, tmp_path, order, teacher=None, number=None, distill=None, **settings):
    torch.save(build(segmentor(4)).state_dict(), tmp_path / 'teacher.pth')
    model = distilled(segmentor(4), teacher or segmentor(4), tmp_path / 'teacher.pth', distill)
    model['teacher'] = model['teacher'] if number is None else [model['teacher']] * number
    runner = runner_for(data_root, tmp_path / 'run', dict(type='mmseg_kd.TeacherCheckHook', **settings), model=model)
    oracle = Oracle(data_root, order)
    runner.model.teacher._logits = lambda model, inputs: oracle.logits(model, inputs)
    # Only the check is of interest, not the training that follows it.
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner._val_loop = runner.build_val_loop(runner._val_loop)
    return runner, oracle


def test_a_good_teacher_passes(mini_cityscapes, tmp_path):
    runner, oracle = teacher_run(mini_cityscapes, tmp_path, list(range(19)), min_miou=99.9)
    runner.call_hook('before_train')
    assert oracle.calls == 4


def test_labels_in_another_order_are_found_out(mini_cityscapes, tmp_path):
    runner, _ = teacher_run(mini_cityscapes, tmp_path, [*range(1, 19), 0])
    with pytest.raises(ValueError, match=r'`teacher`: 0.00 mIoU on 4 validation pictures, which is not better than'):
        runner.call_hook('before_train')


def test_the_score_is_that_of_mmsegs_metric(mini_cityscapes, tmp_path, caplog):
    """Half of the classes in place: over the 4 pictures, against mmseg's own test of the same predictions."""
    order = [*range(10), *range(11, 19), 10]
    runner, oracle = teacher_run(mini_cityscapes, tmp_path, order, min_miou=100.)
    ious = []
    labels = torch.stack(oracle.labels)
    predicted = torch.tensor(order)[labels.masked_fill(labels == 255, 0)]
    for c in range(19):
        ours, theirs = (predicted == c) & (labels != 255), labels == c
        if (ours | theirs).any():
            ious.append(((ours & theirs).sum() / (ours | theirs).sum()).item())
    with pytest.raises(ValueError, match=f'`teacher`: {100 * sum(ious) / len(ious):.2f} mIoU'):
        runner.call_hook('before_train')


def constant(oracle):
    """The most frequent class of the pictures, and the mIoU in percent of who always answers it."""
    labels = torch.stack(oracle.labels)
    count = torch.bincount(labels[labels != 255], minlength=19)
    return int(count.argmax()), 100 * (count.max() / count.sum() / (count > 0).sum()).item()


def test_a_teacher_must_beat_the_most_frequent_class(mini_cityscapes, tmp_path):
    """It passes as soon as it does, whatever its mIoU is worth otherwise."""
    runner, oracle = teacher_run(mini_cityscapes, tmp_path, list(range(19)))
    frequent, miou = constant(oracle)
    oracle.order = [frequent] * 19
    with pytest.raises(ValueError, match=rf'`teacher`: {miou:.2f} mIoU .* always answering .* \({miou:.2f}\)'):
        runner.call_hook('before_train')
    oracle.calls, oracle.order = 0, [frequent] * 19
    other = next(c for c in torch.stack(oracle.labels).unique().tolist() if c not in (frequent, 255))
    oracle.order[other] = other
    runner.call_hook('before_train')
    assert oracle.calls == 4


def test_padding_at_test_time_costs_the_teacher_nothing(mini_cityscapes, tmp_path):
    """A teacher that is right at every pixel, and says something else in the padding."""
    model = segmentor(4)
    model['data_preprocessor']['test_cfg'] = dict(size_divisor=48)
    runner, oracle = teacher_run(mini_cityscapes, tmp_path, list(range(19)), teacher=model, min_miou=99.9)
    runner.call_hook('before_train')
    assert oracle.calls == 4 and oracle.sizes == {(48, 96)}


def test_every_teacher_is_checked_by_its_name(mini_cityscapes, tmp_path):
    runner, oracle = teacher_run(mini_cityscapes, tmp_path, list(range(19)), number=2)
    bad = Oracle(mini_cityscapes, [*range(1, 19), 0])
    runner.model.teachers[1]._logits = bad.logits
    with pytest.raises(ValueError, match=r'`teacher\[1\]`: 0.00 mIoU'):
        runner.call_hook('before_train')
    assert oracle.calls == bad.calls == 4


def test_who_reads_no_logits_needs_no_check(mini_cityscapes, tmp_path):
    terms = dict(at=dict(loss=dict(type='mmseg_kd.AttentionTransferLoss'), on='backbone.layer4'))
    runner, oracle = teacher_run(mini_cityscapes, tmp_path, [0] * 19, distill=terms)
    runner.call_hook('before_train')
    assert oracle.calls == 0


def test_who_has_no_teacher_to_check(mini_cityscapes, tmp_path):
    hook = dict(type='mmseg_kd.TeacherCheckHook', min_miou=100.)
    runner_for(mini_cityscapes, tmp_path / 'plain', hook).train()
    runner_for(mini_cityscapes, tmp_path / 'random', hook, model=distilled(segmentor(4), segmentor(4))).train()


@pytest.mark.parametrize('settings', [dict(min_miou=101), dict(pictures=0), dict(pictures=1.5)])
def test_bad_settings_of_the_teacher_check(settings):
    from mmseg_kd.engine import TeacherCheckHook
    with pytest.raises(ValueError, match=f'`teacher_check.{next(iter(settings))}`: expected'):
        TeacherCheckHook(**settings)


class Evil:
    def __reduce__(self):
        return open, ('ran', 'w')


def test_initial_weights_and_resume_run_no_code(mini_cityscapes, tmp_path, loaders, monkeypatch):
    """mmengine alone unpickles everything when the safe way fails."""
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict=build(segmentor(4)).state_dict(), more=Evil()), 'evil.pth')
    model = build(segmentor(4))
    config = run_config(segmentor(4), mini_cityscapes)
    load_checkpoints_without_code(config)
    with pytest.raises(ValueError, match='holds more than weights'):
        load_checkpoint(model, 'evil.pth')
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run/last_checkpoint').write_text(str(tmp_path / 'evil.pth'))
    with pytest.raises(ValueError, match='holds more than weights'):
        runner_for(mini_cityscapes, tmp_path / 'run', resume=True).train()
    assert not (tmp_path / 'ran').exists()


def test_trust_is_explicit_and_said(mini_cityscapes, tmp_path, loaders, monkeypatch):
    from mmseg_kd.engine import checkpoint_loading
    said = []
    monkeypatch.setattr(checkpoint_loading, 'print_log', lambda message, **kwargs: said.append(message))
    before = dict(CheckpointLoader._schemes)
    load_checkpoints_without_code(run_config(segmentor(4), mini_cityscapes, trust_checkpoints=True))
    assert CheckpointLoader._schemes == before and 'trust_checkpoints' in said[0] and 'code' in said[0]


def test_checkpoints_that_do_not_fit(mini_cityscapes, tmp_path, monkeypatch):
    from mmseg_kd.engine import checkpoint_loading
    said = []
    monkeypatch.setattr(checkpoint_loading, 'print_log', lambda message, **kwargs: said.append(message))
    weights = build(segmentor(4)).state_dict()
    torch.save(dict(state_dict={f'other.{name}': value for name, value in weights.items()}), tmp_path / 'other.pth')
    torch.save(dict(state_dict={name: value for name, value in weights.items() if 'conv_seg' not in name}),
               tmp_path / 'part.pth')
    torch.save(dict(state_dict=weights), tmp_path / 'whole.pth')

    def start(name, **settings):
        runner_for(mini_cityscapes, tmp_path / 'run', 'CheckpointFitHook', load_from=str(tmp_path / f'{name}.pth'),
                   experiment_name=f'{name}{settings}', **settings).load_or_resume()

    start('whole')
    assert not said
    start('part')
    assert f'of {len(weights)} keys of the model 2 are missing (decode_head.conv_seg.weight' in said[0]
    with pytest.raises(ValueError, match='`load_from`: the checkpoint is not of this model'):
        start('other')
    with pytest.raises(ValueError, match='`resume`: the checkpoint is not of this model'):
        start('part', resume=True)


def test_the_tool_stops_a_hopeless_teacher(mini_cityscapes, tmp_path):
    """tools/train.py has the checks on; random weights saved as a checkpoint are what it is for."""
    torch.save(build(segmentor(4, 'PSPHead')).state_dict(), tmp_path / 'teacher.pth')
    config = run_config(distilled(segmentor(4), segmentor(4, 'PSPHead'), tmp_path / 'teacher.pth'), mini_cityscapes)
    config.pop('teacher_check')
    config.dump(tmp_path / 'config.py')
    process = command('tools/train.py', tmp_path / 'config.py', '--work-dir', tmp_path / 'run', check=False)
    assert process.returncode != 0
    assert 'mIoU on 4 validation pictures, which is not better than always answering' in process.stdout
    assert 'Iter(train)' not in process.stdout


def test_every_way_to_a_checkpoint_leads_through_the_one_door(mini_cityscapes, loaders, tmp_path, monkeypatch):
    """Whatever prefix mmengine knows, and what a file there would run."""
    from mmengine.runner import checkpoint as theirs
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict=build(segmentor(4)).state_dict(), more=Evil()), 'evil.pth')
    load_checkpoints_without_code(run_config(segmentor(4), mini_cityscapes))
    from mmseg_kd.engine import checkpoint_loading
    for name in ('get_torchvision_models', 'get_external_models', 'get_mmcls_models'):
        monkeypatch.setattr(checkpoint_loading, name, lambda: dict(evil=str(tmp_path / 'evil.pth')))
    monkeypatch.setattr(checkpoint_loading, 'download', lambda *args, **kwargs: str(tmp_path / 'evil.pth'))
    monkeypatch.setattr(checkpoint_loading, 'get_local_path', lambda path: nullcontext(str(tmp_path / 'evil.pth')))
    assert {'', 'http://', 'torchvision://', 'open-mmlab://', 'mmcls://'} <= set(CheckpointLoader._schemes)
    for prefix in CheckpointLoader._schemes:
        with pytest.raises(ValueError, match='holds more than weights'):
            # Some prefixes are patterns with an optional beginning.
            theirs._load_checkpoint(prefix.rpartition('?')[2] + 'evil' if prefix else 'evil.pth')
    assert not (tmp_path / 'ran').exists()
