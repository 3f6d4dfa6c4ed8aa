"""The sections of a report that are pictures: where distillation helped and hurt, and what its loss saw there."""
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from mmseg_kd.distillers.compare import WEIGHTS
from mmseg_kd.distillers.segmentation.prediction import Prediction, predict
from mmseg_kd.distillers.terms import build_terms
from mmseg_kd.evaluation.members import Member
from mmseg_kd.evaluation.model_statistics import Statistics
from mmseg_kd.visualization.page import PictureRow, Section, keys, picture_grid, scales
from mmseg_kd.visualization.pixels import BOTH_WRONG, BROKEN, FIXED, change_picture, data_uri, heat_picture
from mmseg_kd.visualization.predictions import colorize, draw_predictions

__all__ = ['choose', 'picture_sections']


def choose(alone: Statistics, distilled: Statistics, number: int) -> tuple[list[tuple[int, float]], ...]:
    """Images (index, change of the share of right pixels) where it helped most and where it hurt most."""
    change = np.nan_to_num(np.subtract(distilled.image_accuracy, alone.image_accuracy))
    order = np.argsort(-change, kind='stable')
    helped = [(int(i), float(change[i])) for i in order[:number] if change[i] > 0]
    hurt = [(int(i), float(change[i])) for i in order[::-1][:number] if change[i] < 0]
    return helped, hurt


@torch.no_grad()
def picture_sections(members: list[Member], alone: Member, distilled: Member, models: dict[str, nn.Module], dataset,
                     chosen, out: Path) -> list[Section]:
    """Predictions on the chosen images, and maps of the loss's parts on them; each also as one PNG."""
    palette, classes = dataset.metainfo['palette'], dataset.metainfo['classes']
    names = list(dict.fromkeys([members[0].name, alone.name, distilled.name]))
    columns = ['image', 'ground truth', *names, 'changed']
    rows, terms_rows, seen = [], [], set()
    for sign, group in zip(('helped', 'hurt'), chosen, strict=True):
        for index, change in group:
            item = dataset[index]
            image = np.ascontiguousarray(item['inputs'].numpy().transpose(1, 2, 0)[..., ::-1])
            data = dict(inputs=[item['inputs']], data_samples=[item['data_samples']])
            predictions = {name: predict(models[name], data)[0] for name in names}
            truth = predictions[names[0]].labels.cpu().numpy()
            if truth.shape != image.shape[:2]:
                image = cv2.resize(image, truth.shape[::-1])
            found = {name: each.predicted.cpu().numpy() for name, each in predictions.items()}
            seen |= set(np.unique(truth)) | {c for each in found.values() for c in np.unique(each)}
            path = Path(item['data_samples'].metainfo.get('img_path', f'image {index}')).stem
            rows.append((sign, f'{100 * change:+.1f} points of pixels right: {path}', [
                image, colorize(truth, palette),
                *(colorize(np.where(truth == 255, 255, each), palette) for each in found.values()),
                change_picture(image, found[alone.name], found[distilled.name], truth)]))
            terms_rows.append((path, image, loss_maps(distilled, predictions[distilled.name],
                                                      predictions[members[0].name])))
    if not rows:
        return []
    _save(out / 'images.png', columns, [pictures for _, _, pictures in rows])
    shown = sorted(c for c in seen if c < len(classes))
    legend = keys([('rgb({},{},{})'.format(*palette[c]), classes[c]) for c in shown])
    changes = keys([('rgb({},{},{})'.format(*color), words) for color, words in (
        (FIXED, f'right in {distilled.name} only'), (BROKEN, f'right in {alone.name} only'),
        (BOTH_WRONG, 'wrong in both'))])
    grid = picture_grid(columns, [PictureRow(caption, [data_uri(each) for each in pictures])
                                  for _, caption, pictures in rows])
    count = [sum(sign == each for each, _, _ in rows) for sign in ('helped', 'hurt')]
    sections = [Section(
        'Images', f'Where {distilled.name} helped most, and where it hurt most',
        f'First the images whose share of right pixels rose most from {alone.name} to {distilled.name} ({count[0]}), '
        f'then those where it fell most ({count[1]}).', grid + changes + legend)]
    return sections + _loss_section(distilled, terms_rows, out)


def loss_maps(distilled: Member, of_student: Prediction, of_teacher: Prediction) -> dict[str, np.ndarray]:
    """Each part of each loss on logits at each pixel, (H, W), at weight 1; of a loss without parts its value.

    A term on the auxiliary classifier, which is not a part of the student, shows the main one's logits.
    """
    maps = {}
    student, teacher, labels = of_student.logits[None], of_teacher.logits[None], of_student.labels[None]
    for name, term in build_terms(distilled.config.model.distill, 255, WEIGHTS, dense=True).items():
        # Void has no label, and a picture of the loss shows it as such whatever `positions` the term had.
        term.loss.ignore_index = 255
        if term.teacher_tap != 'logits' or term.student_tap not in ('logits', 'aux_logits'):
            continue
        parts = term.loss.part_values(student, teacher, labels, reduction='none')
        if not parts:
            term.loss.reduction = 'none'
            parts = dict(value=term.loss(student, teacher, labels))
        maps.update({f'{name}: {part.replace("_", " ")}': value[0].cpu().numpy() for part, value in parts.items()
                     if value.shape == labels.shape})
    return maps


def _loss_section(distilled: Member, rows, out: Path) -> list[Section]:
    names = list(rows[0][2])
    if not names:
        return []
    # One scale a part, so that images can be compared; the largest percent of pixels share the lightest colour.
    limits = {name: float(np.percentile([values for _, _, maps in rows for values in maps[name].flat], 99))
              for name in names}
    columns = ['image', *names]
    pictures = [[image, *(heat_picture(maps[name], limits[name]) for name in names)] for _, image, maps in rows]
    _save(out / 'loss_maps.png', columns, pictures)
    grid = picture_grid(columns, [PictureRow(path, [data_uri(each) for each in row])
                                  for (path, _, _), row in zip(rows, pictures, strict=True)])
    ramp = ''.join(f'rgb({r},{g},{b}) {10 * i}%,' for i, (r, g, b) in enumerate(
        heat_picture(np.linspace(0, 1, 11)[None], 1.)[0].tolist())).rstrip(',')
    ramps = scales([(name, f'linear-gradient(90deg,{ramp})', f'{limit:.3g}') for name, limit in limits.items()])
    total = {name: float(np.mean([maps[name].mean() for _, _, maps in rows])) for name in names}
    largest = max(total, key=total.get)
    title = (f'Where {distilled.name} still differs from the teacher' if len(names) == 1 else
             f'Most of what {distilled.name} still misses here is the {largest.partition(": ")[2]} part')
    return [Section('Loss maps', title,
                    "Each part of the distillation loss at each pixel of the same images, at weight 1, after training. "
                    'Lighter is more.', grid + ramps)]


def _save(path: Path, columns: list[str], rows: list[list[np.ndarray]]) -> None:
    draw_predictions({name: [row[column] for row in rows] for column, name in enumerate(columns)}).savefig(path)
