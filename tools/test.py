"""Evaluate a model: mmseg's `tools/test.py`; of a distilled config the plain student is built, without teacher."""
import argparse
import os
import os.path as osp

from mmengine.config import Config, DictAction

import mmseg_kd  # noqa: F401 (before configs are read: makes 'mmseg::' bases resolve)
from mmseg_kd.commands.terminal import build_runner, short_errors
from mmseg_kd.config import read_config, student_config
from mmseg_kd.engine.checkpoint_loading import load_checkpoints_without_code
from mmseg_kd.engine.runner_defaults import use_gloo_without_gpu


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a segmentor or classifier')
    parser.add_argument('config', help="path of the training config, or 'mmseg_kd::<folder>/<name>.py'")
    parser.add_argument('checkpoint', help='checkpoint to evaluate')
    parser.add_argument('--work-dir', help='where the metrics are written as JSON (default: work_dirs/<config name>)')
    parser.add_argument('--out', help='folder for the predicted label maps, for offline evaluation or a test server')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='folder for painted predictions')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds between shown predictions')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction,
                        help='override settings of the config: key=value, nested keys by dots, lists as key="[a,b]"')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def draw_predictions(cfg: Config, args: argparse.Namespace) -> None:
    """Turn the config's visualization hook on."""
    hook = cfg.default_hooks.get('visualization')
    if hook is None:
        raise ValueError('`--show`/`--show-dir`: the config has no default_hooks.visualization; add '
                         "visualization=dict(type='SegVisualizationHook').")
    if args.show:
        hook.show, hook.wait_time = True, args.wait_time
    if cfg.get('default_scope') == 'mmpretrain':
        hook.enable, hook.out_dir = True, args.show_dir
        return
    hook.draw = True
    # The original mmseg 1.2.2 paints every 50th picture; who asks for a folder wants all.
    hook.setdefault('interval', 1)
    if args.show_dir:
        cfg.visualizer.save_dir = args.show_dir


def main() -> None:
    args = parse_args()
    if not osp.isfile(args.checkpoint) and '://' not in args.checkpoint:
        raise ValueError(f'`checkpoint`: expected an existing file or a URL, got {args.checkpoint!r}.')
    cfg = read_config(args.config, 'config')
    cfg.launcher = args.launcher
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        cfg.work_dir = osp.join('./work_dirs', osp.splitext(osp.basename(args.config))[0])
    cfg.model = student_config(cfg.model)
    cfg.load_from = args.checkpoint
    if args.show or args.show_dir:
        draw_predictions(cfg, args)
    if args.tta:
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        cfg.tta_model.module = cfg.model
        cfg.model = cfg.tta_model
    if args.out:
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, (list, tuple)) else [cfg.test_evaluator]
        for evaluator in evaluators:
            if cfg.get('default_scope') == 'mmpretrain':
                raise ValueError(f'`--out`: {evaluator.type} writes no label maps (a classifier has none); leave '
                                 'it out.')
            evaluator.update(output_dir=args.out, keep_results=True)
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type='mmseg_kd.CheckpointFitHook')]
    load_checkpoints_without_code(cfg)
    use_gloo_without_gpu(cfg)
    build_runner(cfg).test()


if __name__ == '__main__':
    short_errors()
    main()
