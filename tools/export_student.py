"""Export a trained student for machines without mmseg_kd.

    python tools/export_student.py CONFIG CHECKPOINT --out DIR [--onnx] [--torchscript] [--export]

DIR/config.py and DIR/weights.pth load by `mmseg.apis.init_model`. The other formats take pictures (batch, 3, height,
width), RGB, 0 to 255, float32, and give class logits of the same size. Every file is run and compared on real pictures;
nothing is left of an export that differs.
"""
import argparse
import logging
from pathlib import Path

from mmengine.config import DictAction
from mmengine.logging import MMLogger

import mmseg_kd  # noqa: F401 (before configs are read: makes 'mmseg::' bases resolve)
from mmseg_kd.config import read_config
from mmseg_kd.export import export_student


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Export a trained student',
                                     formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog=__doc__.split('\n\n', 2)[2])
    parser.add_argument('config', help='the training config, distilled or plain')
    parser.add_argument('checkpoint', help='the checkpoint that the training wrote')
    parser.add_argument('--out', required=True, help='folder for the export; must not exist, or be empty')
    parser.add_argument('--onnx', action='store_true', help='also ONNX, checked with onnxruntime (extra "export")')
    parser.add_argument('--torchscript', action='store_true', help='also a trace for torch.jit.load')
    parser.add_argument('--export', action='store_true', help='also a program for torch.export.load')
    parser.add_argument('--no-plain', action='store_true', help='no config and weights for plain OpenMMLab')
    parser.add_argument('--images', nargs='+', metavar='FILE',
                        help="pictures to check on (default: 4 of the config's validation data)")
    parser.add_argument('--repetitions', type=int, default=20, help='timed calls of each form (default 20)')
    parser.add_argument('--tolerance', type=float, default=1e-4,
                        help='largest difference of logits over the largest logit that passes (default 1e-4)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction,
                        help='override settings of the config: key=value, nested keys by dots, lists as key="[a,b]"')
    return parser.parse_args()


def table(report: dict) -> str:
    """The report's figures as a markdown table."""
    rows = ['| form | file | MB | free sizes | largest difference | relative | other class | ms |',
            '| --- | --- | ---: | --- | ---: | ---: | ---: | ---: |']
    for name, form in report['forms'].items():
        found = form.get('differences') or [dict(largest=0., relative=0., other_class=0.)]
        worst = max(found, key=lambda each: each['relative'])
        free = '' if name == 'plain' else ', '.join(form['dynamic']) or 'none'
        rows.append(f"| {name} | {form.get('file', '')} | {form.get('bytes', 0) / 1e6:.2f} | {free} | "
                    f"{worst['largest']:.2g} | {worst['relative']:.2g} | {worst['other_class']:.2%} | "
                    f"{form['milliseconds']:.2f} |")
    return '\n'.join(rows)


def main() -> None:
    args = parse_args()
    MMLogger.get_instance('mmengine', log_level=logging.WARNING)
    cfg = read_config(args.config, 'config')
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    formats = [name for name in ('onnx', 'torchscript', 'export') if getattr(args, name)]
    report = export_student(cfg, args.checkpoint, args.out, formats, not args.no_plain, args.images,
                            repetitions=args.repetitions, tolerance=args.tolerance)
    print(table(report))
    checked, timed = report['checked_on'], report['timed']
    print(f"\nchecked on {checked['pictures']} pictures of {'x'.join(map(str, checked['size']))}; ms: median of "
          f"{timed['repetitions']} calls in turns, one picture, {timed['threads']} thread(s)")
    for name, form in report['forms'].items():
        for attempt in form.get('refused', ()):
            print(f"{name}: not with free {', '.join(attempt['dynamic'])}: {attempt['reason'].splitlines()[0]}")
    print(f'{args.out}: {", ".join(sorted(path.name for path in Path(args.out).iterdir()))}')


if __name__ == '__main__':
    main()
