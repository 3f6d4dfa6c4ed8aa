"""The sections of a report on image classifiers."""
from collections.abc import Callable, Sequence

import numpy as np

from mmseg_kd.evaluation.confusion import accuracy, row_shares
from mmseg_kd.evaluation.members import Member
from mmseg_kd.evaluation.model_statistics import Statistics
from mmseg_kd.evaluation.topk_mass import TopKMass
from mmseg_kd.visualization.classes import draw_class_bars
from mmseg_kd.visualization.curves import Panel, draw_curves
from mmseg_kd.visualization.page import Section, table, tiles
from mmseg_kd.visualization.report_sections import (
    calibration_section,
    confusion_section,
    cost_of,
    cost_of_training,
    distance_section,
    gains,
    statistics_section,
    steps_of,
    topk_section,
)

__all__ = ['classifier_sections', 'classifier_summary']

Show = Callable[[str, object, str], str]
_METRIC = 'accuracy/top1'
#: Classes in a figure; of more those whose accuracy changed most are shown.
MOST_CLASSES = 40


def _score(statistics: Statistics) -> float:
    return 100 * accuracy(statistics.confusion)


def classifier_summary(members: list[Member], alone: Member | None, statistics: dict[str, Statistics]) -> str:
    """Accuracy of every model, and the difference to the student alone."""
    items = []
    for member in members:
        score = _score(statistics[member.name])
        if alone is None or member is alone or member.role == 'teacher':
            remark = 'accuracy, ' + dict(
                teacher='the teacher', alone='trained alone', distilled='distilled')[member.role]
        else:
            remark = f'accuracy, {score - _score(statistics[alone.name]):+.2f} to {alone.name}'
        items.append((member.color, member.name, f'{score:.2f}', remark))
    return tiles(items)


def classifier_sections(members: list[Member], alone: Member | None, distilled: Member,
                        statistics: dict[str, Statistics], masses: dict[str, TopKMass], classes: list[str],
                        show: Show, shifted: dict[str, dict[str, Statistics]] | None = None) -> list[Section]:
    """All sections, in the order of the page; ``shifted`` holds the statistics on other pictures, by their name."""
    colors = {member.name: member.color for member in members}
    base = (alone or members[0]).name
    compared = [distilled.name] + [member.name for member in members
                                   if member.role != 'teacher' and member.name not in (base, distilled.name)]
    values = {name: 100 * row_shares(each.confusion).diag().numpy() for name, each in statistics.items()}
    chosen = _most_changed(values[distilled.name] - values[base])
    named = [classes[index] for index in chosen]
    sections = (
        _numbers(members, statistics),
        _other_pictures(members, statistics, shifted or {}),
        _curves(members, colors, show),
        _classes(values, chosen, classes, colors, base, compared, show),
        confusion_section(statistics, classes, base, distilled.name, show, chosen),
        statistics_section(members, colors, show, 'images'),
        calibration_section(statistics, colors, base, distilled.name, show, 'Images'),
        distance_section(statistics, named, colors, members[0].name, distilled.name, show, 'images', chosen),
        topk_section(masses, named, show, 'images', chosen))
    return [section for section in sections if section is not None]


def _most_changed(difference: np.ndarray) -> list[int]:
    """Classes for the figures, in their order."""
    order = np.argsort(-np.abs(np.nan_to_num(difference)), kind='stable')
    return sorted(order[:MOST_CLASSES].tolist())


def _numbers(members: list[Member], statistics: dict[str, Statistics]) -> Section:
    rows = []
    for member in members:
        own, inference = statistics[member.name], cost_of(member)
        to_teacher = member.role != 'teacher'
        rows.append((member.color, [
            member.name, f'{_score(own):.2f}', f'{100 * own.calibration.error:.1f}',
            f'{100 * own.to_teacher.agreement:.1f}' if to_teacher else '',
            f'{own.to_teacher.squared_distance:.3f}' if to_teacher else '',
            f'{inference.parameters / 1e6:.2f} M',
            '' if inference.multiply_adds is None else f'{inference.multiply_adds / 1e9:.3g} G',
            *cost_of_training(member.run)[:2]]))
    students = [member for member in members if member.role != 'teacher']
    share = cost_of(students[0]).parameters / cost_of(members[0]).parameters
    return Section(
        'Numbers', f"The student has {100 * share:.0f} % of the teacher's parameters",
        'Scores in percent on the validation images. ECE: expected calibration error, less is better. Distance: mean '
        "squared difference of the logits to the teacher's, over images and classes, as the models give them. FLOPs "
        'count one multiply-add as one. One run each: tools/analysis/compare.py shows the spread over seeds.',
        table(['', 'accuracy', 'ECE', 'agrees with teacher', 'squared distance to teacher', 'parameters', 'FLOPs',
               'iterations', 's / step'], rows))


def _other_pictures(members: list[Member], statistics: dict[str, Statistics],
                    shifted: dict[str, dict[str, Statistics]]) -> Section | None:
    if not shifted:
        return None
    rows = [(member.color, [member.name, f'{_score(statistics[member.name]):.2f}',
                            *(f'{_score(each[member.name]):.2f}' for each in shifted.values())]) for member in members]
    students = [member.name for member in members if member.role != 'teacher']
    words, first = next(iter(shifted.items()))
    best = max(students, key=lambda name: _score(first[name]))
    return Section(
        'Other pictures', f'{best} is the best student on the images {words}, with {_score(first[best]):.2f} %',
        'Accuracy in percent on the validation images and on others. Noised: Gaussian noise of 25 grey levels on a '
        'square of 45 % of the sides. Scrambled: cut into 4 x 4 patches in a random order, as in the robustness '
        "evaluation of DGKD's code (mmseg_kd/datasets/shifts.py).", table(['', 'as they are', *shifted], rows))


def _curves(members: list[Member], colors: dict[str, str], show: Show) -> Section | None:
    validated, supervised = {}, {}
    for member in members:
        run = member.run
        if run is None or not run.validations or not run.steps:
            continue
        # A run by epochs counts its validations in epochs.
        by_epoch = member.config.get('train_cfg', {}).get('by_epoch', False)
        scale = run.iterations / run.validations[-1]['step'] if by_epoch else 1
        records = [record for record in run.validations if _METRIC in record]
        validated[member.name] = [scale * record['step'] for record in records], [
            record[_METRIC] for record in records]
        # Where nothing is distilled the sum is the supervised loss.
        key = 'loss_cls' if any('loss_cls' in record for record in run.steps) else 'loss'
        supervised[member.name] = steps_of(member, key)
    students = [member.name for member in members if member.role != 'teacher' and member.name in validated]
    if not students:
        return None
    best = max(students, key=lambda name: validated[name][1][-1])
    panels = [Panel('Accuracy on the validation images', '%', validated),
              Panel('Supervised loss', 'mean over images', supervised, log=True)]
    return Section('Training', f'{best} ends highest of the students, at {validated[best][1][-1]:.2f} % accuracy',
                   'Validation as often as the runs validated; losses as the log has them.',
                   show('curves', draw_curves(panels, colors), 'Curves of accuracy and supervised loss of all runs'))


def _classes(values: dict[str, np.ndarray], chosen: Sequence[int], classes: list[str], colors, base: str,
             compared: list[str], show: Show) -> Section:
    some = '' if len(chosen) == len(classes) else f' The {len(chosen)} of {len(classes)} classes that changed most.'
    return Section('Classes', gains(values, classes, base, compared[0], 'accuracy'),
                   f'Share of the images of each class that are right. Right: difference to {base}.{some}',
                   show('class_accuracy', draw_class_bars(
                       {name: each[chosen] for name, each in values.items()}, [classes[index] for index in chosen],
                       colors, 'accuracy, %', base, compared), 'Accuracy of each class'))
