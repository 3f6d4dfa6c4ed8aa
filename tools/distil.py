"""Distil a student by one command: a short config is written into the work dir, and trained.

mmseg-kd distil --teacher mmseg::pspnet/pspnet_r101-d8_4xb2-80k_cityscapes-512x1024.py \\
    --student mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py --method cwd --data data/cityscapes

All other flags are those of mmseg-kd train: --unlabelled DIR, --amp, --resume, --cfg-options key=value, ...
"""
import argparse

from mmseg_kd.__main__ import run_tool
from mmseg_kd.commands import METHODS
from mmseg_kd.commands.arguments import add_trust_argument
from mmseg_kd.commands.written_config import write_config


def parse_args() -> tuple[argparse.Namespace, list[str]]:
    """Our arguments, and those of tools/train.py."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=__doc__.split('\n\n', 1)[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--student', required=True, metavar='CONFIG',
                        help="config of the student: a path, or 'mmseg::<folder>/<name>.py'")
    parser.add_argument('--teacher', required=True, metavar='TEACHER',
                        help='a config, the work dir of a training run, or a model on Hugging Face (owner/name)')
    parser.add_argument('--teacher-checkpoint', metavar='FILE',
                        help="file or URL of the teacher's weights (default: the latest of a work dir, or mmseg's own)")
    parser.add_argument('--method', default='kd', metavar='METHOD', help=f'{", ".join(METHODS)} (default kd)')
    parser.add_argument('--data', metavar='DIR', help="folder of the data (default: where the student's config has it)")
    parser.add_argument('--iterations', type=int, metavar='N', help="length of the training (default: the student's)")
    parser.add_argument('--work-dir', metavar='DIR',
                        help='where config, logs and checkpoints go (default work_dirs/<method>_<student>)')
    add_trust_argument(parser)
    parser.add_argument('--write-only', action='store_true', help='write the config, and do not train')
    return parser.parse_known_args()


def main() -> None:
    args, rest = parse_args()
    path = write_config(args.student, args.teacher, teacher_checkpoint=args.teacher_checkpoint, method=args.method,
                        data=args.data, iterations=args.iterations, work_dir=args.work_dir,
                        trust_configs=args.trust_configs)
    train = [str(path), '--work-dir', str(path.parent), *rest]
    print(f'The config is {path}. Edit it as you like; this trains it: mmseg-kd train {" ".join(train)}', flush=True)
    if not args.write_only:
        run_tool('train', train)


if __name__ == '__main__':
    main()
