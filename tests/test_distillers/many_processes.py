"""Distilled training in several forked gloo processes and in one; test_many_processes.py starts it.

    python many_processes.py FOLDER DATA_ROOT

It imports everything once and forks, which costs a second where a fresh interpreter costs six. For every number of
processes and every case a process writes its weights after three steps to FOLDER; so does one process on the joined
batch. Then runs with mmengine's Runners, on the data.
"""
import faulthandler
import os
import shutil
import socket
import sys
from contextlib import nullcontext
from pathlib import Path

import mmseg.datasets  # noqa: F401 (a run imports it late)
import torch
import torch.distributed
import torch.multiprocessing
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel, MMFullyShardedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, RUNNERS, TRANSFORMS
from mmengine.runner import Runner
from tiny import batch, build, distilled, run_config, segmentor, train_only_state
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from mmseg_kd.engine import TeacherCheckHook
from mmseg_kd.engine.checkpoint_loading import load_checkpoints_without_code
from mmseg_kd.engine.runner_defaults import add_training_hooks, use_gloo_without_gpu
from mmseg_kd.engine.step_statistics import StepStatistics
from mmseg_kd.safe_load import load_without_code

PROCESSES = (2, 4)
#: Seconds after which a process that waits for another is ended with its stack, where one may wait for ever.
PATIENCE = 90


def _logits(**loss):
    return dict(distill=dict(term=dict(loss=loss)))


_DHKD = dict(distill=dict(dhkd=dict(loss=dict(type='mmseg_kd.BinaryKLNormLoss'), on='aux_logits')),
             dual_head=dict(kind='linear'))
_STAGES = ['backbone.layer3', 'backbone.layer4']
_REVIEW = dict(distill=dict(term=dict(
    loss=dict(type='mmseg_kd.HierarchicalContextLoss'), on=(_STAGES, _STAGES), adapter=dict(kind='review', width=8))))
#: Settings of the model and of the optimizer wrapper. With FSDP the student is sharded, the teacher where it says so.
CASES = {
    'kd': (_logits(type='mmseg_kd.KDLoss'), {}),
    'dkd': (_logits(type='mmseg_kd.DKDLoss'), {}),
    'gdkd': (_logits(type='mmseg_kd.GDKDLoss'), {}),
    'dgkd': (_logits(type='mmseg_kd.DGKDLoss'), {}),
    'dgkd-cap': (_logits(type='mmseg_kd.DGKDLoss', cap=1.), {}),
    'cwd': (_logits(type='mmseg_kd.CWDLoss', loss_weight=50.), {}),
    'review': (_REVIEW, {}),
    'dhkd-parameters': (_DHKD, dict(type='mmseg_kd.GradAlignOptimWrapper')),
    'dhkd-features': (_DHKD, dict(type='mmseg_kd.GradAlignOptimWrapper', level='features')),
    # Two of the four pictures have no labels; with four processes two have nothing else.
    'unlabelled': (dict(distill=dict(
        term=dict(loss=dict(type='mmseg_kd.DKDLoss'), positions='all', weight='confidence'),
        more=dict(loss=dict(type='mmseg_kd.KDLoss'), positions='unlabelled', weight=.08))), {}),
    'fsdp': (_DHKD, {}),
    'fsdp-shard': (_logits(type='mmseg_kd.DGKDLoss'), {}),
}


def four_images(seed):
    """Four images of which one has all its pixels labelled, one a few, one none and one half of them."""
    data = batch(size=4, seed=seed)
    for sample, rows in zip(data['data_samples'], (0, 29, 32, 16), strict=True):
        sample.gt_sem_seg.data[:, 3:3 + rows] = 255
    return data


def train(name, part=slice(None), processes=1):
    """Three steps with frozen batch statistics; the weights, and the statistics of the last step."""
    model_settings, wrapper = CASES[name]
    student = segmentor(dropout_ratio=0.)
    # mmseg divides this one by all pixels, labelled or not, so that its mean is that of the joined batch.
    student['decode_head']['loss_decode'] = dict(type='CrossEntropyLoss', avg_non_ignore=False)
    config = distilled(student, segmentor(16, 'PSPHead')) | model_settings
    config['teacher']['shard'] = name.endswith('shard') and processes > 1
    model = build(config).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    sharded = name.startswith('fsdp') and processes > 1
    if processes == 1:
        trained = model
    elif sharded:
        trained = MMFullyShardedDataParallel(model, device_id=torch.device('cpu'))
    else:
        trained = MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False)
    optimizer = build_optim_wrapper(
        trained, dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.02, momentum=0.9)) | wrapper)
    for seed in range(3):
        data = four_images(seed)
        if name == 'unlabelled':
            for row in (1, 3):
                data['data_samples'][row].set_metainfo(dict(unlabelled=True))
        watched = None if name.startswith('fsdp') else StepStatistics(model)
        trained.train_step({key: value[part] for key, value in data.items()}, optimizer)
        statistics = None if watched is None else watched.close()
    if name.endswith('shard') and processes > 1:
        assert any(hasattr(parameter, 'full_tensor') for parameter in model.teacher.model.parameters())
    with FullyShardedDataParallel.summon_full_params(trained) if sharded else nullcontext():
        return {name: value.detach().clone() for name, value in model.named_parameters()}, statistics


def runner_for(data_root, work_dir, max_iters, interval=None, **settings):
    """A Runner as tools/train.py makes it."""
    # A random teacher would be another one where the seed is drawn.
    model = distilled(segmentor(4), segmentor(16, 'PSPHead'), work_dir.parent / 'teacher.pth') | _DHKD
    config = run_config(model, data_root, max_iters=max_iters, work_dir=str(work_dir), launcher='pytorch',
                        experiment_name=f'{work_dir}{max_iters}',
                        visualizer=dict(type='Visualizer', name=f'{work_dir}{max_iters}',
                                        vis_backends=[dict(type='LocalVisBackend')]), **settings)
    config.val_dataloader.dataset.indices = 3
    config.default_hooks.checkpoint.interval = interval or max_iters
    if 'strategy' in settings:
        config.runner_type = 'FlexibleRunner'
        config.val_dataloader = config.val_cfg = config.val_evaluator = None
    add_training_hooks(config)
    load_checkpoints_without_code(config)
    use_gloo_without_gpu(config)
    return RUNNERS.build(config) if 'strategy' in settings else Runner.from_cfg(config)


def runs(rank, processes, folder, data_root):
    """Validation of three pictures; FSDP straight and resumed."""
    score = runner_for(data_root, folder / f'val_{processes}', 1).val()
    torch.save(score, folder / f'score_{processes}_{rank}.pth')
    if processes != 2:
        return
    # A seed that is drawn, and another in each process; the checkpoint has it.
    drawn = dict(randomness=dict(seed=None, diff_rank_seed=True))
    straight = runner_for(data_root, folder / 'drawn', 4, interval=2, **drawn)
    ends = [straight.train().state_dict()]
    if rank == 0:
        (folder / 'drawn_again').mkdir()
        shutil.copy(folder / 'drawn/iter_2.pth', folder / 'drawn_again')
        (folder / 'drawn_again/last_checkpoint').write_text(str(folder / 'drawn_again/iter_2.pth'))
    torch.distributed.barrier()
    resumed = runner_for(data_root, folder / 'drawn_again', 4, resume=True, **drawn)
    ends.append(resumed.train().state_dict())
    torch.save(dict(ends=ends, seeds=[straight.seed, resumed.seed],
                    iterations=[straight.iter, resumed.iter]), folder / f'drawn_{rank}.pth')
    fsdp = dict(strategy=dict(type='FSDPStrategy'))
    straight = runner_for(data_root, folder / 'straight', 4, **fsdp)
    straight.train()
    runner_for(data_root, folder / 'broken', 2, **fsdp).train()
    resumed = runner_for(data_root, folder / 'broken', 4, resume=True, **fsdp)
    resumed.train()
    for name, runner in (('straight', straight), ('resumed', resumed)):
        with FullyShardedDataParallel.summon_full_params(runner.model):
            weights = {key: value.detach().clone() for key, value in runner.model.module.named_parameters()}
        torch.save(weights, folder / f'{name}_{rank}.pth')
    # Its shards cannot be read outside of a process group.
    last = load_without_code(f"{(folder / 'broken/last_checkpoint').read_text()}/rank{rank}.pth")
    torch.save(dict(iter=last['meta']['iter'], names=list(last['state_dict']), others=list(train_only_state(last))),
               folder / f'last_{rank}.pth')


@TRANSFORMS.register_module()
class CropToItsNumber:
    """Pictures of other widths: a sliding window sees one of them more often than another."""

    def __call__(self, results):
        width = 32 + 16 * results['sample_idx']
        results['img'], results['gt_seg_map'] = results['img'][:, :width], results['gt_seg_map'][:, :width]
        results['img_shape'] = results['ori_shape'] = results['img'].shape[:2]
        return results


@HOOKS.register_module()
class SpoilPicturesHook(Hook):
    """Puts NaN into the pictures of one process, which no other process sees."""

    def __init__(self, rank, iterations):
        self.rank, self.iterations = rank, iterations

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if torch.distributed.get_rank() == self.rank and runner.iter + 1 in self.iterations:
            data_batch['inputs'] = [picture * float('nan') for picture in data_batch['inputs']]


def shared_teacher(data_root, folder, **settings):
    """A Runner whose teacher's weights are shared by the processes, and which slides a window over pictures."""
    teacher = segmentor(16, 'PSPHead')
    teacher['test_cfg'] = dict(mode='slide', crop_size=(32, 32), stride=(16, 16))
    model = distilled(segmentor(4), teacher, folder / 'teacher.pth') | _logits(type='mmseg_kd.KDLoss')
    alone = not torch.distributed.is_initialized()
    model['teacher']['shard'] = not alone
    config = run_config(model if not alone else teacher, data_root, work_dir=str(folder / 'shared'),
                        launcher='none' if alone else 'pytorch', experiment_name=f'shared{alone}',
                        visualizer=dict(type='Visualizer', name=f'shared{alone}'),
                        load_from=str(folder / 'teacher.pth') if alone else None, **settings)
    config.val_dataloader.dataset.indices = 3
    config.val_dataloader.dataset.pipeline.insert(2, dict(type='CropToItsNumber'))
    config.default_hooks.checkpoint = None
    if not alone:
        add_training_hooks(config)
        use_gloo_without_gpu(config)
    return Runner.from_cfg(config)


def shared_teachers(rank, folder, data_root):
    """The teacher check, and the search for a NaN that one process sees, where all must run the teacher alike."""
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    runner = shared_teacher(data_root, folder, teacher_check=dict(min_miou=0.),
                            custom_hooks=[dict(type='mmseg_kd.FiniteStepHook', skip=1),
                                          dict(type='SpoilPicturesHook', rank=1, iterations=(1, 3))])
    check = next(hook for hook in runner.hooks if isinstance(hook, TeacherCheckHook))
    judge, seen = check._judge, {}

    def judge_and_note(name, miou, *args):
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        seen['miou'] = miou
        judge(name, miou, *args)
    check._judge = judge_and_note
    try:
        runner.train()
    except FloatingPointError as error:
        seen['refusal'] = str(error)
    seen['iterations'] = runner.iter
    seen['shared'] = any(hasattr(value, 'full_tensor') for value in runner.model.module.teacher.model.parameters())
    torch.save(seen, folder / f'shared_{rank}.pth')
    faulthandler.cancel_dump_traceback_later()


def one_process(rank, processes, folder, data_root, port):
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank),
                      WORLD_SIZE=str(processes))
    torch.distributed.init_process_group('gloo')
    size = 4 // processes
    for name in CASES:
        trained = train(name, slice(rank * size, (rank + 1) * size), processes)
        torch.save(trained, folder / f'{name}_{processes}_{rank}.pth')
    runs(rank, processes, folder, data_root)
    if processes == 2:
        shared_teachers(rank, folder, data_root)
    torch.distributed.destroy_process_group()


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


if __name__ == '__main__':
    # Formatting the config takes longer than all else, at each start and for each checkpoint.
    Config.pretty_text = property(repr)
    folder, data_root = Path(sys.argv[1]), sys.argv[2]
    torch.save(build(segmentor(16, 'PSPHead')).state_dict(), folder / 'teacher.pth')
    for processes in PROCESSES:
        torch.multiprocessing.start_processes(one_process, (processes, folder, data_root, free_port()),
                                              nprocs=processes, start_method='fork')
    # The last of all: a process that has gone backward cannot be forked.
    for name in CASES:
        torch.save(train(name), folder / f'{name}_1.pth')
    config = run_config(distilled(segmentor(4), segmentor(4, 'PSPHead')) | _DHKD, data_root,
                        work_dir=str(folder / 'val_1'), experiment_name='val_1')
    config.val_dataloader.dataset.indices = 3
    torch.save(Runner.from_cfg(config).val(), folder / 'score_1.pth')
    torch.save(shared_teacher(data_root, folder).val(), folder / 'score_of_teacher.pth')
