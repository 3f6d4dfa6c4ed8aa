"""One page that shows what distillation did: curves, classes, pixels, confidence, the teacher's mind.

    python tools/analysis/report.py teacher=work_dirs/teacher 'student alone=work_dirs/student_s0' KD=work_dirs/kd_s0 \\
        DKD=work_dirs/dkd_s0 --out work_dirs/report

Writes OUT/report.html, which needs no other file, and every figure as a PNG beside it. Reads what training runs leave
in their work dirs and runs their latest checkpoints, and the teacher's, once over the validation images of a run. The
first student alone and the first distilled run named are the pair that the pictures compare. The runs are of segmentors
or of image classifiers; the page of classifiers has no pictures.
"""
import argparse
import logging
from pathlib import Path

from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import Runner

import mmseg_kd  # noqa: F401 (before configs are read)
from mmseg_kd.commands.arguments import RUN, add_trust_argument
from mmseg_kd.evaluation.members import Member, cast, load
from mmseg_kd.evaluation.model_statistics import one_pass
from mmseg_kd.evaluation.predictions import build_loader, is_segmentor
from mmseg_kd.visualization.page import Section, page, sources
from mmseg_kd.visualization.report_classifiers import classifier_sections, classifier_summary
from mmseg_kd.visualization.report_pictures import choose, picture_sections
from mmseg_kd.visualization.report_sections import figure_sections, summary
from mmseg_kd.visualization.theme import ALONE, DISTILLED, INK, TEACHER, to_svg

SHIFTS = dict(noised=dict(type='mmseg_kd.NoisyPatch'), scrambled=dict(type='mmseg_kd.ScrambledPatches'))


def parse_args(arguments=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Report on distilled runs', epilog=__doc__.split('\n\n')[1])
    parser.add_argument('runs', nargs='+', metavar=RUN,
                        help="work dirs of the runs: distilled ones, students alone, and the teacher's")
    parser.add_argument('--out', type=Path, default=Path('work_dirs/report'),
                        help='folder to write into (default work_dirs/report)')
    parser.add_argument('--title', default='What distillation did', help='heading of the page')
    parser.add_argument('--images', type=int, default=3,
                        help='how many images to show where it helped most, and where it hurt most (default 3)')
    parser.add_argument('--shifted', nargs='+', default=[], metavar='SHIFT',
                        help="of classifiers: accuracy on the validation images as well with 'noised', 'scrambled', or "
                        'NAME=FOLDER of other images, with a folder for each class')
    parser.add_argument('--device', default='cpu', help='where to predict (default cpu)')
    add_trust_argument(parser)
    args = parser.parse_args(arguments)
    if args.images < 1:
        raise ValueError(f'`--images`: expected at least 1, got {args.images}.')
    for shift in args.shifted:
        if shift not in SHIFTS and not Path(shift.partition('=')[2] or ' ').is_dir():
            raise ValueError(f'`--shifted`: expected {" or ".join(map(repr, SHIFTS))} or NAME=FOLDER, got {shift!r}.')
    return args


def give_colors(members: list[Member]) -> None:
    """A colour for each: teachers grey, the student alone orange, the distilled ones in their order."""
    free = dict(teacher=[TEACHER], alone=[ALONE, DISTILLED[3], DISTILLED[5]], distilled=list(DISTILLED))
    for member in members:
        colors = free[member.role]
        member.color = colors.pop(0) if len(colors) > 1 else colors[0] if colors else INK


def main(arguments=None) -> None:
    args = parse_args(arguments)
    members = cast(args.runs, args.trust_configs)
    give_colors(members)
    teacher = members[0]
    first = next(member for member in members if member.run is not None and member is not teacher)
    init_default_scope(first.config.get('default_scope', 'mmseg'))
    models = {member.name: load(member, args.device) for member in members}
    with DefaultScope.overwrite_default_scope(first.config.get('default_scope', 'mmseg')):
        loader = Runner.build_dataloader(first.config.val_dataloader, seed=0)
    if args.shifted and is_segmentor(first.config.model):
        raise ValueError('`--shifted`: it is for image classifiers, and the runs are of segmentors; leave it out.')
    terms = next(member for member in members if member.role == 'distilled').config.model.distill
    temperatures = {'T = 1': 1.}
    for term in terms.values():
        temperature = term['loss'].get('temperature', 1.)
        temperatures[f'T = {temperature:g}'] = float(temperature)
    statistics, masses = one_pass(models, teacher.name, loader, temperatures)

    args.out.mkdir(parents=True, exist_ok=True)
    classes = list(loader.dataset.metainfo['classes'])

    def show(name: str, figure, label: str) -> str:
        """Save a figure as PNG; its HTML."""
        figure.savefig(args.out / f'{name}.png', facecolor='white')
        return f'<div class="figure scroll">{to_svg(figure, name, label)}</div>'

    alone = next((member for member in members if member.role == 'alone'), None)
    distilled = next(member for member in members if member.role == 'distilled')
    if not is_segmentor(first.config.model):
        shifted = {shift.partition('=')[0]: one_pass(models, teacher.name, build_loader(
            first.config, 'val', SHIFTS.get(shift), shift.partition('=')[2] or None), {})[0] for shift in args.shifted}
        sections = classifier_sections(members, alone, distilled, statistics, masses, classes, show, shifted)
        write(args, members, f'{len(loader.dataset)} validation images, {len(classes)} classes.',
              classifier_summary(members, alone, statistics), sections)
        return
    sections = figure_sections(members, alone, distilled, statistics, masses, classes, show)
    chosen = choose(statistics[(alone or teacher).name], statistics[distilled.name], args.images)
    # After the numbers.
    sections[1:1] = picture_sections(members, alone or teacher, distilled, models, loader.dataset, chosen, args.out)
    seen = statistics[distilled.name].confusion.sum().item()
    lead = (f'{len(loader.dataset)} validation images, {seen:,} labelled pixels, {len(classes)} classes. '
            + ('The pictures compare ' + f'{distilled.name} with {(alone or teacher).name}.'))
    write(args, members, lead, summary(members, alone, statistics), sections)


def write(args: argparse.Namespace, members: list[Member], lead: str, scores: str, sections: list[Section]) -> None:
    """Write the page."""
    runs = sources([(member.name, str(member.checkpoint)) for member in members])
    html = page(args.title, lead, scores, sections, f'Made by tools/analysis/report.py of mmseg_kd from{runs}')
    (args.out / 'report.html').write_text(html)
    print(args.out / 'report.html')


if __name__ == '__main__':
    logging.disable(logging.INFO)
    main()
