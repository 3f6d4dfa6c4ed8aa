"""Runs of a student whose term has a schedule."""
import json
from pathlib import Path

from mmengine.runner import Runner
from tiny import distilled, run_config, segmentor


def model(schedule, **loss):
    term = dict(loss=dict(type='mmseg_kd.KDLoss', **loss), schedule=schedule)
    return distilled(segmentor(), segmentor(16, 'PSPHead'), distill=dict(kd=term))


def run(data_root, work_dir, schedule, max_iters, resume=False, hooks=(), **settings):
    config = run_config(model(schedule), data_root, max_iters=max_iters, work_dir=str(work_dir), resume=resume,
                        custom_hooks=[dict(type='mmseg_kd.ExactResumeHook'), *hooks],
                        experiment_name=f'{work_dir}{max_iters}{resume}',
                        visualizer=dict(type='Visualizer', name=f'{work_dir}{max_iters}{resume}',
                                        vis_backends=[dict(type='LocalVisBackend')]), **settings)
    runner = Runner.from_cfg(config)
    return {name: value.clone() for name, value in runner.train().state_dict().items()}, runner


def logged(runner, key):
    lines = (Path(runner.log_dir) / 'vis_data/scalars.json').read_text().splitlines()
    return [line[key] for line in map(json.loads, lines) if key in line]
