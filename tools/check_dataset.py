"""Check a data set: every file, and everything that is wrong at once, before hours are spent.

    python tools/check_dataset.py data/cityscapes    # a tree in the layout of Cityscapes
    python tools/check_dataset.py CONFIG             # the data sets of a training config, as it loads them

Prints sizes, the share of each class, and all problems with the names of their files. The exit status is 0 when there
are none.
"""
import argparse
import os.path as osp
import sys
from collections import Counter

from cityscapesscripts.helpers.labels import trainId2label
from tqdm import tqdm

from mmseg_kd.config import read_config
from mmseg_kd.datasets.config_check import check_config_data
from mmseg_kd.datasets.tree_check import IMAGE_SUFFIXES, SplitCheck, check_tree
from mmseg_kd.teachers.class_names import metainfo_in_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Check every file of a data set')
    parser.add_argument('root', help='the folder with leftImg8bit and gtFine, or a training config; then the options '
                        'that follow are in the config, up to --label-suffix')
    parser.add_argument('--splits', nargs='+', default=['train', 'val'], help='default: train val')
    parser.add_argument('--num-classes', type=int, default=19,
                        help='labels must be below this number; 0: any label (default %(default)s)')
    parser.add_argument('--ignore-index', type=int, default=255, help='label that does not count (default %(default)s)')
    parser.add_argument('--label-suffix', default='_gtFine_labelTrainIds.png', help='default %(default)s')
    parser.add_argument('--image-suffix', help='default: _leftImg8bit and any ending of a picture')
    parser.add_argument('--workers', type=int, default=1, help='processes that read (default %(default)s)')
    parser.add_argument('--most', type=int, default=50, help='problems printed per split (default %(default)s)')
    return parser.parse_args()


def progress(results, total, split):
    return tqdm(results, desc=split, total=total, unit='pair', file=sys.stderr)


def class_table(checks: dict[str, SplitCheck], names: list[str], ignore_index: int) -> list[str]:
    """Lines of a table: share of the labelled pixels, and pictures with the class, in each split."""
    labels = sorted(set().union(*(check.labels for check in checks.values()), range(len(names))))
    rows = [['label', 'class', *(f'{split} {what}' for split in checks for what in ('pixels', 'pictures'))]]
    for label in labels:
        name = 'ignored' if label == ignore_index else names[label] if label in range(len(names)) else ''
        row = [str(label), name]
        for check in checks.values():
            labelled = sum(count for value, count in check.labels.items() if value != ignore_index)
            every = sum(check.labels.values())
            share = check.labels[label] / max(every if label == ignore_index else labelled, 1)
            row += [f'{share:.3%}', f'{check.pictures_with[label]} of {check.pairs}']
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ['  '.join(cell.ljust(width) if i < 2 else cell.rjust(width)
                      for i, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows]


def in_words(sizes: Counter) -> str:
    return ', '.join(f'{count} of {height}x{width}' for (height, width), count in sizes.most_common(5)) + (
        f' and {len(sizes) - 5} other sizes' if len(sizes) > 5 else '') or 'none'


def main() -> int:
    args = parse_args()
    names, ignore_index = [''] * args.num_classes, args.ignore_index
    if osp.isdir(args.root) or not ('::' in args.root or args.root.endswith('.py')):
        suffixes = (args.image_suffix, ) if args.image_suffix else IMAGE_SUFFIXES
        checks = check_tree(args.root, args.splits, args.num_classes or None, ignore_index, args.label_suffix,
                            args.workers, progress, suffixes)
        if args.num_classes == 19:
            names = [trainId2label[label].name for label in range(19)]
    else:
        cfg = read_config(args.root, 'root')
        checks = check_config_data(cfg, args.workers, progress)
        names = metainfo_in_config(cfg, 'mmseg').get('classes') or []
    for split, check in checks.items():
        print(f'{split}: {check.pairs} pairs; pictures: {in_words(check.sizes)}')
    print('\nShare of the labelled pixels (of all pixels for what is ignored):')
    print('\n'.join(class_table(checks, names, ignore_index)))
    number = 0
    for split, check in checks.items():
        number += len(check.problems)
        if check.problems:
            print(f'\n{split}: {len(check.problems)} problems')
            for problem in check.problems[:args.most]:
                print(f'  {problem}')
            if len(check.problems) > args.most:
                print(f'  ... and {len(check.problems) - args.most} more; --most {len(check.problems)} shows them')
    print(f'\n{number} problems' if number else '\nno problems')
    return int(number > 0)


if __name__ == '__main__':
    sys.exit(main())
