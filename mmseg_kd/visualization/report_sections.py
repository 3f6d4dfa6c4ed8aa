"""The sections of a report that are figures of numbers."""
from collections.abc import Callable, Sequence

import numpy as np
import torch

from mmseg_kd.evaluation.complexity import inference_cost, input_size
from mmseg_kd.evaluation.confusion import accuracy, iou, row_shares
from mmseg_kd.evaluation.members import Member
from mmseg_kd.evaluation.model_statistics import Statistics
from mmseg_kd.evaluation.runs import Run
from mmseg_kd.evaluation.topk_mass import TopKMass
from mmseg_kd.visualization.classes import draw_class_bars, draw_class_dots
from mmseg_kd.visualization.confusion import draw_confusion_difference
from mmseg_kd.visualization.curves import Panel, draw_curves
from mmseg_kd.visualization.page import Section, table, tiles
from mmseg_kd.visualization.reliability import draw_reliability
from mmseg_kd.visualization.topk import draw_topk_mass

__all__ = ['calibration_section', 'confusion_section', 'cost_of', 'distance_section', 'figure_sections', 'gains',
           'statistics_section', 'steps_of', 'summary', 'topk_section']

Show = Callable[[str, object, str], str]


def mean_iou(statistics: Statistics) -> float:
    """mIoU in percent over the classes that there are, rounded as mmseg logs it, so that all tables agree."""
    return round(float(100 * np.nanmean(iou(statistics.confusion).numpy())), 2)


def boundary_iou(statistics: Statistics) -> float:
    """Mean boundary IoU in percent over the classes that there are, rounded as the mIoU."""
    return round(float(100 * np.nanmean(statistics.boundary.of_class)), 2)


def summary(members: list[Member], alone: Member | None, statistics: dict[str, Statistics]) -> str:
    """mIoU of every model, and the difference to the student alone."""
    items = []
    for member in members:
        score = mean_iou(statistics[member.name])
        if alone is None or member is alone or member.role == 'teacher':
            remark = 'mIoU, ' + dict(teacher='the teacher', alone='trained alone', distilled='distilled')[member.role]
        else:
            remark = f'mIoU, {score - mean_iou(statistics[alone.name]):+.2f} to {alone.name}'
        items.append((member.color, member.name, f'{score:.2f}', remark))
    return tiles(items)


def figure_sections(members: list[Member], alone: Member | None, distilled: Member, statistics: dict[str, Statistics],
                    masses: dict[str, TopKMass], classes: list[str], show: Show) -> list[Section]:
    """All sections but the pictures, in the order of the page."""
    colors = {member.name: member.color for member in members}
    base = (alone or members[0]).name
    # The pair of the report first, then every other student.
    compared = [distilled.name] + [member.name for member in members
                                   if member.role != 'teacher' and member.name not in (base, distilled.name)]
    return [section for section in (
        _numbers(members, statistics),
        _curves(members, colors, show),
        _classes(statistics, classes, colors, base, compared, show),
        _boundaries(statistics, classes, colors, base, compared, show),
        confusion_section(statistics, classes, base, distilled.name, show),
        statistics_section(members, colors, show),
        calibration_section(statistics, colors, base, distilled.name, show),
        distance_section(statistics, classes, colors, members[0].name, distilled.name, show),
        topk_section(masses, classes, show)) if section is not None]


def _numbers(members: list[Member], statistics: dict[str, Statistics]) -> Section:
    rows = []
    for member in members:
        own = statistics[member.name]
        inference = cost_of(member)
        rows.append((member.color, [
            member.name, f'{mean_iou(own):.2f}', f'{boundary_iou(own):.2f}',
            f'{100 * accuracy(own.confusion):.2f}', f'{100 * own.calibration.error:.1f}',
            '' if member.role == 'teacher' else f'{100 * own.to_teacher.agreement:.1f}',
            f'{inference.parameters / 1e6:.2f} M',
            '' if inference.multiply_adds is None else f'{inference.multiply_adds / 1e9:.3g} G',
            *cost_of_training(member.run)]))
    header = ['', 'mIoU', 'boundary IoU', 'pixels right', 'ECE', 'agrees with teacher', 'parameters', 'FLOPs',
              'iterations', 's / step', 'memory']
    students = [member for member in members if member.role != 'teacher']
    share = cost_of(students[0]).parameters / cost_of(members[0]).parameters
    return Section('Numbers', f"The student has {100 * share:.0f} % of the teacher's parameters",
                   'Scores in percent on the validation images. ECE: expected calibration error, less is better. FLOPs '
                   'count one multiply-add as one. Time and memory are those of training, as the runs logged them. '
                   'One run each: tools/analysis/compare.py shows the spread over seeds.',
                   table(header, rows))


def cost_of(member: Member):
    """Parameters and FLOPs of a member's inference."""
    return inference_cost(member.config, input_size(member.config))


def cost_of_training(run: Run | None) -> list[str]:
    """Iterations, seconds a step and memory in words; '' for what is not known, as of a run that only tested."""
    iterations, time, memory = (None, None, None) if run is None else (run.iterations, run.step_time, run.peak_memory)
    return ['' if iterations is None else f'{iterations}', '' if time is None else f'{time:.3f}',
            '' if memory is None else f'{memory / 1024:.2f} GiB']


def steps_of(member: Member, key: str) -> tuple[list[float], list[float]]:
    """Steps and values of one number of a run's log."""
    records = [record for record in member.run.steps if record.get(key) is not None]
    return [record['step'] for record in records], [record[key] for record in records]


def _curves(members: list[Member], colors: dict[str, str], show: Show) -> Section | None:
    of_run = [member for member in members if member.run is not None]
    validated = {member.name: ([record['step'] for record in member.run.validations if 'mIoU' in record],
                               [record['mIoU'] for record in member.run.validations if 'mIoU' in record])
                 for member in of_run if any('mIoU' in record for record in member.run.validations)}
    supervised = {member.name: steps_of(member, 'decode.loss_ce') for member in of_run}
    panels = [Panel('mIoU on the validation images', '%', validated),
              Panel('Supervised loss (cross-entropy)', 'mean over pixels',
                    {name: curve for name, curve in supervised.items() if curve[0]}, log=True)]
    students = [member.name for member in of_run if member.role != 'teacher' and member.name in validated]
    if not students:
        return None
    best = max(students, key=lambda name: validated[name][1][-1])
    return Section('Training', f'{best} ends highest of the students, at {validated[best][1][-1]:.2f} mIoU',
                   'Validation as often as the runs validated; losses as the log has them.',
                   show('curves', draw_curves(panels, colors), 'Curves of mIoU and supervised loss of all runs'))


def _classes(statistics, classes, colors, base: str, compared: list[str], show: Show) -> Section:
    values = {name: (100 * iou(each.confusion).numpy()).round(2) for name, each in statistics.items()}
    return Section('Classes', gains(values, classes, base, compared[0], 'IoU'),
                   f'IoU of each class. Right: difference to {base}.',
                   show('class_iou', draw_class_bars(values, classes, colors, 'IoU, %', base, compared),
                        'IoU of each class'))


def gains(values: dict[str, np.ndarray], classes: list[str], base: str, distilled: str, what: str) -> str:
    """On how many classes one is better than another, and where most and least."""
    difference = values[distilled] - values[base]
    most, least = int(np.nanargmax(difference)), int(np.nanargmin(difference))
    up = int(np.nansum(difference > 0))
    return (f'{distilled} is better on {up} of {int(np.isfinite(difference).sum())} classes: {what} '
            f'{difference[most]:+.2f} on {classes[most]}, {difference[least]:+.2f} on {classes[least]}')


def _boundaries(statistics, classes, colors, base: str, compared: list[str], show: Show) -> Section:
    values = {name: np.round(100 * each.boundary.of_class, 2) for name, each in statistics.items()}
    change = boundary_iou(statistics[compared[0]]) - boundary_iou(statistics[base])
    return Section(
        'Boundaries', f'Along the boundaries {compared[0]} changes {base} by {change:+.2f} points of IoU',
        "Boundary IoU (Cheng et al., 2021): IoU of the pixels within 2 % of the image diagonal of a segment's contour, "
        f'per class, summed over the images. Right: difference to {base}.',
        show('boundary_iou', draw_class_bars(values, classes, colors, 'boundary IoU, %', base, compared),
             'Boundary IoU of each class'))


def confusion_section(statistics, classes, base: str, distilled: str, show: Show,
                      chosen: Sequence[int] | None = None) -> Section:
    """What is taken for what; the figure has the chosen classes only."""
    shown = list(range(len(classes))) if chosen is None else list(chosen)
    matrices = [row_shares(statistics[name].confusion) for name in (distilled, base)]
    difference = 100 * (matrices[0] - matrices[1])
    difference[statistics[base].confusion.sum(1) == 0] = torch.nan
    beside = torch.nan_to_num(difference).fill_diagonal_(0)
    row, column = divmod(int(beside.abs().argmax()), len(classes))
    more = 'more' if beside[row, column] > 0 else 'less'
    return Section(
        'Confusions', f'{distilled} takes {classes[row]} for {classes[column]} '
        f'{abs(beside[row, column]):.1f} points {more} often',
        f'Share of each label that is predicted as each class, {distilled} minus {base}, in percentage points. Blue '
        'is better (more on the diagonal, less beside it), orange is worse.',
        show('confusion', draw_confusion_difference(difference[shown][:, shown].numpy(),
                                                    [classes[index] for index in shown]),
             'Difference of the confusion matrices'))


#: What DGKD's diagnostics are called, and their units.
_OF_DGKD = dict(
    gradient_cosine=("Cosine of DKD's two gradients", 'cosine by the logits'),
    gradient_covariance=("Covariance of DKD's two gradients", 'over the classes'),
    batch_covariance=("Normalised covariance of DKD's two gradients", 'over the batch, in [-1, 1]'),
    target_gradient_norm=('Gradient of the target part', 'mean norm'),
    non_target_gradient_norm=('Gradient of the non-target part', 'mean norm'),
    coupling_to_dkd=('Coupling term beside DKD', 'ratio of the gradients'))
_PARTS = ('target', 'non_target', 'between', 'within_top', 'within_rest', 'inter_class', 'intra_class')


def statistics_section(members: list[Member], colors: dict[str, str], show: Show,
                       positions: str = 'pixels') -> Section | None:
    """What the training hook logged: the parts of the losses, the gradients' cosine, confidence, agreement."""
    logged = {}
    for member in members:
        for record in member.run.statistics if member.run is not None else []:
            for key, value in record.items():
                what, _, term = key.removeprefix('distill.').rpartition('_')
                if key.startswith('distill.') and what != 'loss':
                    x, y = logged.setdefault(what, {}).setdefault((member.name, term), ([], []))
                    x.append(record['step'])
                    y.append(value)
    if not logged:
        return None

    def panel(title: str, ylabel: str, what: str, **settings) -> Panel:
        # A run with several terms shows its first.
        curves = {}
        for (name, _), curve in logged.get(what, {}).items():
            curves.setdefault(name, curve)
        return Panel(title, ylabel, curves, **settings)

    parts = [panel(f'Part of the loss: {what.replace("_", " ")}', f'mean over {positions}', what, log=True)
             for what in _PARTS if what in logged]
    panels = [panel('Cosine of distillation and supervised gradient', 'cosine at the shared features',
                    'supervised_cosine', zero=True),
              panel('Agreement with the teacher', f'share of {positions}', 'agreement'), *parts,
              panel("The teacher's confidence", 'mean largest probability', 'teacher_confidence'),
              panel("The student's confidence in the label", 'mean probability of the label', 'label_confidence'),
              *(panel(title, unit, what, zero=what.endswith(('cosine', 'covariance')))
                for what, (title, unit) in _OF_DGKD.items() if what in logged)]
    cosines = [value for _, values in logged.get('supervised_cosine', {}).values() for value in values]
    title = 'The parts of the losses while the students train'
    if cosines:
        against = sum(value < 0 for value in cosines) / len(cosines)
        title = ('Distillation and labels pull the same way in every recorded step' if against == 0 else
                 f'Distillation pulls against the labels in {100 * against:.0f} % of the recorded steps')
    return Section('Gradients and loss parts', title,
                   'Recorded by DistillStatisticsHook while the runs trained. Parts are at weight 1 and carry T². A '
                   'cosine below 0: following only the teacher would undo what the labels teach.',
                   show('statistics', draw_curves(panels, colors), 'Curves of the statistics of distillation'))


def calibration_section(statistics, colors, base: str, distilled: str, show: Show,
                        positions: str = 'Pixels') -> Section:
    """How far confidence is from being right."""
    calibrations = {name: each.calibration for name, each in statistics.items()}
    one, other = (100 * calibrations[name].error for name in (distilled, base))
    word = ('as well calibrated as' if f'{one:.1f}' == f'{other:.1f}' else
            'better calibrated than' if one < other else 'worse calibrated than')
    return Section('Calibration', f'{distilled} is {word} {base}: ECE {one:.1f} % against {other:.1f} %',
                   f'{positions} in 15 bins by confidence. On the diagonal a model is right as often as it is sure; '
                   f'expected calibration error (Guo et al., 2017) is the mean gap, weighed by {positions.lower()}.',
                   show('calibration', draw_reliability(calibrations, colors), 'Reliability diagram'))


def distance_section(statistics, classes, colors, teacher: str, distilled: str, show: Show,
                     positions: str = 'pixels', chosen: Sequence[int] | None = None) -> Section:
    """How far the students' logits are from the teacher's; ``classes`` names the chosen ones."""
    students = {name: each.to_teacher for name, each in statistics.items() if name != teacher}
    values = {name: each.distance_of_class.numpy() for name, each in students.items()}
    if chosen is not None:
        values = {name: each[chosen] for name, each in values.items()}
    nearest = min(students, key=lambda name: students[name].distance)
    return Section('Distance to the teacher',
                   f"{nearest}'s logits are nearest to the teacher's; {distilled} agrees with it on "
                   f'{100 * students[distilled].agreement:.1f} % of the {positions}',
                   "Root mean square over the classes of the difference of student's and teacher's logits, each "
                   f'without its mean, averaged over the {positions} of each label. Over all {positions}: '
                   + ', '.join(f'{name} {each.distance:.2f}' for name, each in students.items()) + '.',
                   show('logit_distance', draw_class_dots(values, classes, colors, 'distance of the logits'),
                        'Logit distance to the teacher by class'))


def topk_section(masses: dict[str, TopKMass], classes: list[str], show: Show, positions: str = 'pixels',
                 chosen: Sequence[int] | None = None) -> Section:
    """How many classes the teacher means; ``classes`` names the chosen ones."""
    words, mass = next(iter(masses.items()))
    k = mass.quantile(0.9)
    return Section('Top-k mass',
                   f"At {words}, k = {k} holds 95 % of the teacher's probability on 90 % of the {positions}",
                   "Which k does GDKD want here? The fewest classes that hold 95 % of the teacher's probability, over "
                   f'the {positions} and by label; T is what the loss softens with. '
                   "tools/analysis/measure_topk.py makes the table for GDKD's k per class.",
                   show('topk_mass', draw_topk_mass(masses, classes, positions=positions, chosen=chosen),
                        'Number of classes that hold the mass'))
