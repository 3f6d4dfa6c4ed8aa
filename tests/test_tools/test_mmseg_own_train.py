"""A distilled config under the script that mmseg ships: the same bits as under ours."""
import shutil
from pathlib import Path

import mmseg
import torch
from tiny import build, command, distilled, run_config, segmentor, train_only_state

from mmseg_kd.safe_load import load_without_code

THEIRS = Path(mmseg.__file__).parent / '.mim/tools/train.py'


def same(first, second):
    """Whether two nested states are equal in every bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(value, second[key]) for key, value in first.items())
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def test_it_trains_saves_and_resumes_under_mmsegs_own_script(mini_cityscapes, tmp_path):
    """Dual head, adapter, EMA teacher beside another, schedule; the config names custom_imports and nothing else.

    Ours, whole; mmseg's, whole; mmseg's from halfway. Without dropout and augmentation, which mmseg's script does not
    resume.
    """
    student = segmentor(dropout_ratio=0.)
    torch.save(build(segmentor(16, 'PSPHead', dropout_ratio=0.), seed=1).state_dict(), tmp_path / 'teacher.pth')
    model = distilled(student, segmentor(16, 'PSPHead', dropout_ratio=0.), tmp_path / 'teacher.pth', distill=dict(
        kd=dict(loss=dict(type='mmseg_kd.KDLoss'), schedule=dict(warmup=4)),
        dhkd=dict(loss=dict(type='mmseg_kd.BinaryKLLoss', temperature=2.), on='aux_logits'),
        mse=dict(loss=dict(type='mmseg_kd.LogitMSELoss'), on='backbone.layer4', adapter=dict(kind='linear'))))
    model |= dict(dual_head=dict(kind='linear'), teacher=[model['teacher'], dict(type='ema', momentum=0.2)])
    config = run_config(model, mini_cityscapes, max_iters=6)
    config.train_dataloader.dataset.pipeline = config.val_dataloader.dataset.pipeline
    config.default_hooks.checkpoint.interval = 3
    config.dump(tmp_path / 'config.py')
    assert list(config.custom_imports.imports) == ['mmseg_kd'] and 'custom_hooks' not in config
    said = command('tools/train.py', tmp_path / 'config.py', '--work-dir', tmp_path / 'ours').stdout
    assert 'exact_resume (ExactResumeHook), ' in said and 'NAME=False in the config' in said
    command(THEIRS, tmp_path / 'config.py', '--work-dir', tmp_path / 'theirs')
    (tmp_path / 'resumed').mkdir()
    shutil.copy(tmp_path / 'theirs/iter_3.pth', tmp_path / 'resumed')
    (tmp_path / 'resumed/last_checkpoint').write_text(str(tmp_path / 'resumed/iter_3.pth'))
    said = command(THEIRS, tmp_path / 'config.py', '--work-dir', tmp_path / 'resumed', '--resume').stdout
    assert 'resumed epoch: 0, iter: 3' in said
    ours, theirs, resumed, halfway = (load_without_code(tmp_path / name) for name in (
        'ours/iter_6.pth', 'theirs/iter_6.pth', 'resumed/iter_6.pth', 'theirs/iter_3.pth'))
    state = train_only_state(ours)
    assert {name.split('.')[0] for name in state} == {'terms', 'dual_head', 'ema_teacher'}
    assert state['ema_teacher.0.steps'] == 6 and train_only_state(halfway)['ema_teacher.0.steps'] == 3
    for other in (theirs, resumed):
        assert same(ours['state_dict'], other['state_dict'])
        assert same(ours['optimizer'], other['optimizer'])
        assert same(state, train_only_state(other))
    assert not any(same(value, train_only_state(halfway)[name]) for name, value in state.items()
                   if not name.endswith('num_batches_tracked'))
    build(student).load_state_dict(theirs['state_dict'], strict=True)
    scales = [[checkpoint['message_hub']['log_scalars']['train/distill.scale_kd'].data[0].tolist()]
              for checkpoint in (ours, theirs, resumed)]
    assert scales == [[[0.25, 0.5, 0.75, 1., 1., 1.]]] * 3
