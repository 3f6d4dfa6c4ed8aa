"""tools/train.py, tools/test.py and the launchers, as a user types them."""
import json
import os
import stat
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from tiny import ROOT, build, command, distilled, run_config, segmentor


@pytest.fixture(scope='module')
def trained(mini_cityscapes, tmp_path_factory):
    """A distilled run of tools/train.py: (config, work dir, output)."""
    folder = tmp_path_factory.mktemp('trained')
    torch.save(build(segmentor(16, 'PSPHead')).state_dict(), folder / 'teacher.pth')
    model = distilled(segmentor(), segmentor(16, 'PSPHead'), folder / 'teacher.pth')
    config = run_config(model, mini_cityscapes, max_iters=4, visualizer=dict(
        type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer'))
    config.default_hooks.visualization = dict(type='SegVisualizationHook')
    config.dump(folder / 'config.py')
    output = command('tools/train.py', folder / 'config.py', '--work-dir', folder / 'run').stdout
    return folder / 'config.py', folder / 'run', output


def metrics(work_dir):
    return json.loads(sorted(work_dir.glob('*/*.json'))[-1].read_text())


def test_training_logs_every_loss_and_validates(trained):
    _, work_dir, output = trained
    assert 'distill.loss_dkd' in output and 'decode.loss_ce' in output
    assert 'mIoU' in output and 'aAcc' in output and 'mAcc' in output and 'traffic light' in output
    records = [json.loads(line) for line in next(work_dir.glob('*/vis_data/scalars.json')).open()]
    first = records[0]
    assert first['loss'] == pytest.approx(first['decode.loss_ce'] + first['distill.loss_dkd'], rel=1e-5)


def test_training_on_unlabelled_pictures(trained, mini_cityscapes, tmp_path):
    """A distilled config with a folder of pictures: half of them, and then no label at all."""
    config, _, _ = trained
    option = ['--unlabelled', mini_cityscapes / 'leftImg8bit', '--cfg-options']
    output = command('tools/train.py', config, '--work-dir', tmp_path / 'half', *option,
                     'train_dataloader.dataset.indices=4').stdout
    assert 'each batch has 1 labelled and 1 unlabelled pictures' in output
    assert 'Unlabelled pictures: 12; 4 more have labels' in output
    assert 'decode.loss_ce' in output and 'distill.loss_dkd' in output and 'mIoU' in output
    output = command('tools/train.py', config, '--work-dir', tmp_path / 'none', '--unlabelled-share', '1', *option,
                     'train_dataloader.dataset.data_root=gone').stdout
    assert 'each batch has 0 labelled and 2 unlabelled pictures' in output
    assert 'decode.loss' not in output and 'acc_seg' not in output
    assert 'distill.loss_dkd' in output and 'mIoU' in output
    process = command('tools/train.py', config, '--unlabelled', tmp_path / 'nowhere', check=False)
    assert process.returncode and f'`--unlabelled`: expected a folder of pictures, {tmp_path}' in process.stdout


def test_the_checkpoint_is_a_plain_students(trained):
    """Loaded by mmseg's own init_model into the plain config, which must find every key and no other."""
    config, work_dir, _ = trained
    plain = Config.fromfile(config)
    plain.model = segmentor()
    plain.dump(work_dir / 'plain.py')
    arguments = f"{str(work_dir / 'plain.py')!r}, {str(work_dir / 'iter_4.pth')!r}, device='cpu'"
    code = f"from mmseg.apis import init_model; init_model({arguments}); print('loaded')"
    output = command('-c', code).stdout
    assert 'loaded' in output
    assert 'missing' not in output and 'unexpected' not in output and 'size mismatch' not in output


def test_test_tool_scores_the_distilled_config_without_its_teacher(trained, tmp_path):
    config, work_dir, output = trained
    # The teacher's checkpoint is gone: evaluation has no use for it.
    process = command('tools/test.py', config, work_dir / 'iter_4.pth', '--work-dir', tmp_path, '--cfg-options',
                      'model.teacher.checkpoint=gone.pth')
    score = metrics(tmp_path)['mIoU']
    records = [json.loads(line) for line in next(work_dir.glob('*/vis_data/scalars.json')).open()]
    assert score == pytest.approx(records[-1]['mIoU'], abs=1e-6)
    logged = process.stdout + next(tmp_path.glob('*/*.log')).read_text()
    assert 'EncoderDecoder' in logged and 'DistilledEncoderDecoder' not in logged
    # The table takes what it left for a row of a trained network.
    rows = command('tools/analysis/compare.py', f'trained={work_dir}', f'evaluated={tmp_path}').stdout.splitlines()
    cells = next(row for row in rows if row.startswith('| evaluated')).split(' | ')
    assert cells[3:5] == ['', f'{score:.2f}']


def test_official_evaluation_and_the_label_maps_for_a_server(trained, tmp_path):
    """cityscapesscripts' own evaluation on request; with --out the predictions stay, as label ids."""
    config, work_dir, _ = trained
    output = command('tools/test.py', config, work_dir / 'iter_4.pth', '--work-dir', tmp_path / 'w', '--out',
                     tmp_path / 'server', '--cfg-options', 'test_evaluator.type=CityscapesMetric').stdout
    assert 'averageScoreCategories' in output and 'Score Average' in output
    assert len(list((tmp_path / 'server').rglob('*.png'))) == 4


def test_predictions_are_painted(trained, tmp_path):
    config, work_dir, _ = trained
    command('tools/test.py', config, work_dir / 'iter_4.pth', '--work-dir', tmp_path, '--show-dir', tmp_path / 'shown')
    assert len(list((tmp_path / 'shown').rglob('*.png'))) == 4  # all of them


def test_predictions_of_runs_side_by_side(trained, tmp_path):
    from PIL import Image
    _, work_dir, _ = trained
    command('tools/analysis/draw_predictions.py', f'one={work_dir}', f'two={work_dir}', '--images', '3', '--out',
            tmp_path / 'picture.png')
    width, height = Image.open(tmp_path / 'picture.png').size
    assert width > 4 * 300 and height > 3 * 150


def test_a_run_in_words(trained):
    output = command('tools/analysis/compare.py', f'distilled={trained[1]}').stdout
    assert '| distilled |' in output


def test_two_processes_train_and_test(trained, tmp_path):
    """tools/dist_train.sh and tools/dist_test.sh on two gloo processes."""
    config, _, _ = trained
    environment = dict(os.environ, PORT='29671', OMP_NUM_THREADS='1', PYTHON=sys.executable)
    for arguments in (
            ['tools/dist_train.sh', config, '2', '--work-dir', tmp_path],
            ['tools/dist_test.sh', config, tmp_path / 'iter_4.pth', '2', '--work-dir', tmp_path / 'test']):
        process = subprocess.run(['bash', *map(str, arguments)], cwd=ROOT, env=environment, text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert process.returncode == 0, process.stdout[-3000:]
        assert process.stdout.count('2 processes. The environment') == 1
        if not torch.cuda.is_available():
            assert process.stdout.count('There is no GPU: 2 processes train on the CPU') == 1
        assert 'OneDL' not in process.stdout and process.stdout.count('OMP_NUM_THREADS') == 0
    alone = command('tools/test.py', config, tmp_path / 'iter_4.pth', '--work-dir', tmp_path / 'alone')
    assert 'mIoU' in alone.stdout
    assert metrics(tmp_path / 'test')['mIoU'] == pytest.approx(metrics(tmp_path / 'alone')['mIoU'], abs=1e-4)


@pytest.mark.parametrize('script, arguments, expected', [
    ('slurm_train.sh', ['part', 'job', 'c.py', '--amp'],
     ['-p', 'part', '--job-name=job', '--gres=gpu:2', '--ntasks=8', '--ntasks-per-node=2', '--cpus-per-task=5',
      '--kill-on-bad-exit=1', '--exclusive', 'python', '-u', f'{ROOT}/tools/train.py', 'c.py', '--launcher', 'slurm',
      '--amp']),
    ('slurm_test.sh', ['part', 'job', 'c.py', 'w.pth'],
     ['-p', 'part', '--job-name=job', '--gres=gpu:2', '--ntasks=8', '--ntasks-per-node=2', '--cpus-per-task=5',
      '--kill-on-bad-exit=1', '--exclusive', 'python', '-u', f'{ROOT}/tools/test.py', 'c.py', 'w.pth', '--launcher',
      'slurm']),
])
def test_slurm_scripts_call_srun(tmp_path, script, arguments, expected):
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(srun.stat().st_mode | stat.S_IXUSR)
    output = subprocess.run(
        ['bash', f'tools/{script}', *arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE, check=True,
        env=dict(os.environ, PATH=f"{tmp_path}:{os.environ['PATH']}", GPUS='8', GPUS_PER_NODE='2',
                 SRUN_ARGS='--exclusive'))
    assert output.stdout.split() == expected


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'])
def test_launchers_say_how_they_are_used(script):
    process = subprocess.run(['bash', f'tools/{script}'], cwd=ROOT, text=True, stderr=subprocess.PIPE)
    assert process.returncode == 2 and process.stderr.startswith('usage:')


def test_amp_form_of_the_optim_wrapper():
    sys.path.insert(0, str(ROOT / 'tools'))
    try:
        from train import enable_amp
    finally:
        sys.path.pop(0)
    for before, after in [('OptimWrapper', 'AmpOptimWrapper'), ('AmpOptimWrapper', 'AmpOptimWrapper'),
                          ('mmseg_kd.GradAlignOptimWrapper', 'mmseg_kd.AmpGradAlignOptimWrapper')]:
        cfg = Config(dict(optim_wrapper=dict(type=before)))
        enable_amp(cfg)
        assert cfg.optim_wrapper.type == after
    with pytest.raises(ValueError, match='`--amp`'):
        enable_amp(Config(dict(optim_wrapper=dict(type='OtherWrapper'))))


def test_a_bad_teacher_ends_the_command_before_training(trained, tmp_path):
    config, _, _ = trained
    process = command('tools/train.py', config, '--work-dir', tmp_path, '--cfg-options',
                      'model.teacher.checkpoint=gone.pth', check=False)
    assert process.returncode != 0 and "`teacher.checkpoint`: expected an existing checkpoint file" in process.stdout


def test_evaluating_a_missing_checkpoint_is_refused(trained):
    process = command('tools/test.py', trained[0], 'gone.pth', check=False)
    assert process.returncode != 0 and "`checkpoint`: expected an existing file" in process.stdout
