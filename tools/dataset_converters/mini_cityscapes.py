"""Writes mini-Cityscapes: procedural street scenes in the layout of Cityscapes.

    python tools/dataset_converters/mini_cityscapes.py data/mini_cityscapes --num-train 240 --num-val 60 --size 64 128

With --coco also their instances for detectors, in annotations/instances_<split>.json.
"""
import argparse
import sys

from mmseg_kd.datasets import generate_mini_cityscapes, write_coco_instances


def parse_args():
    parser = argparse.ArgumentParser(description='Generate procedural street scenes in the layout of Cityscapes')
    parser.add_argument('out_dir', help='directory to make, e.g. data/mini_cityscapes')
    parser.add_argument('--num-train', type=int, default=240, help='training pictures (default %(default)s)')
    parser.add_argument('--num-val', type=int, default=60, help='validation pictures (default %(default)s)')
    parser.add_argument('--num-test', type=int, default=0, help='test pictures (default %(default)s)')
    parser.add_argument('--size', type=int, nargs=2, default=(64, 128), metavar=('HEIGHT', 'WIDTH'),
                        help='pixels (default 64 128)')
    parser.add_argument('--seed', type=int, default=0, help='same seed, same pictures (default %(default)s)')
    parser.add_argument('--workers', type=int, default=1, help='processes that draw (default %(default)s)')
    parser.add_argument('--coco', action='store_true', help='also write COCO annotations of the instances')
    return parser.parse_args()


def main():
    args = parse_args()
    try:
        settings = vars(args)
        coco = settings.pop('coco')
        path = generate_mini_cityscapes(**settings)
        if coco:
            write_coco_instances(path)
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    print(f'{path}: {args.num_train} train, {args.num_val} val, {args.num_test} test pictures of '
          f'{args.size[0]}x{args.size[1]}')


if __name__ == '__main__':
    main()
