"""Training from a config: what ``tools/train.py`` does once it has read its arguments."""
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from mmseg_kd.datasets.mixed_batches import check_mixed_batches
from mmseg_kd.distillers.check import check_names_in_config
from mmseg_kd.engine.checkpoint_loading import load_checkpoints_without_code
from mmseg_kd.engine.data_check import refuse_empty_splits
from mmseg_kd.engine.resume import choose_checkpoint
from mmseg_kd.engine.runner_defaults import add_training_hooks, use_gloo_without_gpu, use_teacher_cache
from mmseg_kd.engine.work_dir_lock import lock_work_dir
from mmseg_kd.teachers.class_names import check_config

from .terminal import build_runner, without_noise

__all__ = ['train']


def train(cfg: Config) -> Runner:
    """Check a config, add what every run needs, and train.

    Args:
        cfg: A training config, distilled or plain, with ``work_dir``; it is changed.

    Returns:
        The Runner after its last iteration.

    Raises:
        ValueError: a setting that cannot be; before anything is built, where that is possible.
    """
    without_noise()
    check_names_in_config(cfg)
    _name_the_visualizer(cfg)
    check_mixed_batches(cfg)
    added = add_training_hooks(cfg)
    load_checkpoints_without_code(cfg)
    lock_work_dir(cfg)
    choose_checkpoint(cfg)
    refuse_empty_splits(cfg)
    use_gloo_without_gpu(cfg)
    use_teacher_cache(cfg)
    check_config(cfg)
    runner = build_runner(cfg)
    runner.logger.info(added)
    runner.train()
    return runner


def _name_the_visualizer(cfg: Config) -> None:
    """Give a second run of one process a visualizer of its own: mmengine would let it write where the first one did."""
    settings = cfg.get('visualizer') or dict(type='Visualizer')
    name = settings.get('name', 'visualizer')
    if Visualizer.check_instance_created(name):
        cfg.visualizer = dict(settings, name=f'{name}_{len(Visualizer._instance_dict)}')
