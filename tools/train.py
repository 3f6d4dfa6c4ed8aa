"""Train a model, distilled or plain: mmseg's `tools/train.py`, with exact resume."""
import argparse
import os
import os.path as osp

from mmengine.config import Config, DictAction

from mmseg_kd.commands.terminal import short_errors
from mmseg_kd.commands.training import train
from mmseg_kd.config import read_config
from mmseg_kd.config_names import type_name
from mmseg_kd.datasets.mixed_batches import add_unlabelled
from mmseg_kd.teachers.class_names import metainfo_in_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a segmentor or classifier, distilled or plain')
    parser.add_argument('config', help="path of a training config, or 'mmseg_kd::<folder>/<name>.py'")
    parser.add_argument('--work-dir', help='where logs and checkpoints go (default: work_dirs/<config name>)')
    parser.add_argument('--resume', action='store_true', help='continue from the latest checkpoint in the work dir')
    parser.add_argument('--amp', action='store_true', help='train in automatic mixed precision (GPU)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction,
                        help='override settings of the config: key=value, nested keys by dots, lists as key="[a,b]"')
    parser.add_argument('--unlabelled', metavar='DIR', help='a folder of pictures without labels to distil on as well')
    parser.add_argument('--unlabelled-share', type=float, default=0.5, metavar='SHARE',
                        help='their share of each batch (default: 0.5; 1: train without any label)')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # torch.distributed.launch passes the rank as an argument, torchrun by the environment.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def enable_amp(cfg: Config) -> None:
    """Make the config's optimizer wrapper its mixed-precision form."""
    name = type_name(cfg.optim_wrapper) or 'OptimWrapper'
    if name.startswith('Amp'):
        return
    forms = dict(OptimWrapper='AmpOptimWrapper', GradAlignOptimWrapper='mmseg_kd.AmpGradAlignOptimWrapper')
    if name not in forms:
        raise ValueError(f'`--amp`: there is no mixed-precision form of optim_wrapper.type={name!r}; expected '
                         'OptimWrapper or mmseg_kd.GradAlignOptimWrapper.')
    cfg.optim_wrapper.type = forms[name]
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, 'config')
    cfg.launcher = args.launcher
    cfg.resume = args.resume
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        cfg.work_dir = osp.join('./work_dirs', osp.splitext(osp.basename(args.config))[0])
    if args.amp:
        enable_amp(cfg)
    if args.unlabelled:
        add_unlabelled(cfg, args.unlabelled, args.unlabelled_share, metainfo_in_config(cfg, 'mmseg'))
    train(cfg)


if __name__ == '__main__':
    short_errors()
    main()
