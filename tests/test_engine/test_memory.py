"""Training does not grow. MMSEG_KD_LONG=1 looks at 2000 steps, otherwise at 200."""
import gc
import os

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from tiny import distilled, run_config, segmentor

from mmseg_kd.engine.runner_defaults import add_training_hooks

STEPS = 2000 if os.environ.get('MMSEG_KD_LONG') else 200


@HOOKS.register_module()
class MemoryHook(Hook):
    """Notes resident memory and living tensors now and then."""

    priority = 'LOWEST'

    def __init__(self):
        self.seen = {}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        step = batch_idx + 1
        if step in (STEPS // 4, STEPS):
            gc.collect()
            with open('/proc/self/statm') as file:
                resident = int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
            # type(), since isinstance asks lazy modules what they are and imports them.
            tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
            self.seen[step] = resident, tensors


def test_no_growth(mini_cityscapes, tmp_path):
    """All hooks of tools/train.py, two terms, a dual head with alignment, checkpoints."""
    terms = dict(dgkd=dict(loss=dict(type='mmseg_kd.DGKDLoss')),
                 dhkd=dict(loss=dict(type='mmseg_kd.BinaryKLNormLoss'), on='aux_logits'))
    model = distilled(segmentor(4), segmentor(4, 'PSPHead'), distill=terms) | dict(dual_head=dict(kind='linear'))
    config = run_config(model, mini_cityscapes, max_iters=STEPS, work_dir=str(tmp_path), experiment_name=str(tmp_path),
                        custom_hooks=[dict(type='MemoryHook')], optim_wrapper=dict(
                            type='mmseg_kd.GradAlignOptimWrapper', optimizer=dict(type='SGD', lr=1e-3)))
    config.val_dataloader = config.val_evaluator = config.val_cfg = None
    config.default_hooks.logger.interval = 50
    config.default_hooks.checkpoint.update(interval=STEPS // 4, max_keep_ckpts=1)
    add_training_hooks(config)
    runner = Runner.from_cfg(config)
    runner.train()
    (early, early_tensors), (late, late_tensors) = next(
        hook for hook in runner.hooks if isinstance(hook, MemoryHook)).seen.values()
    print(f'{STEPS} steps: {(late - early) / 2**20:.2f} MiB, {late_tensors - early_tensors} tensors')
    assert late_tensors <= early_tensors
    # A map of logits kept per step would be 150 KiB each; the log keeps 8 bytes of each number.
    assert late - early < 8 * 2**20
