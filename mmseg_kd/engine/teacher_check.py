"""A teacher that knows nothing is found out before training."""
import time

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import all_reduce, get_dist_info
from mmengine.hooks import Hook
from torch import Tensor

from mmseg_kd.registry import HOOKS
from mmseg_kd.taps import LOGITS

from .unwrapped import unwrapped

__all__ = ['TeacherCheckHook']

# Seconds without a word, at most.
_PATIENCE = 5.


@HOOKS.register_module()
class TeacherCheckHook(Hook):
    """Evaluate the teachers on a few validation pictures before training, on the logits that distillation sees.

    Wrong weights, another order of the labels, or pictures normalised in another way leave a teacher near chance, and
    days of training behind it. The mIoU is that of mmseg's own evaluation (``IoUMetric`` over the classes that occur;
    padding, resizing and sliding windows as the teacher's config has them), on pictures spread evenly over the
    validation split; processes share the pictures, unless they share the teacher's weights: then each sees all. Every
    teacher with trained weights is evaluated. It does nothing for models without a teacher, where no term reads a
    teacher's logits or these are of another number of classes, for a teacher without a checkpoint (random weights, as
    asked) or from a cache, and without validation.
    ``tools/train.py`` adds this hook to every run with what ``teacher_check=dict(...)`` says in the config;
    ``--cfg-options teacher_check=False`` leaves it out.

    Args:
        min_miou: Training stops below it, in percent. None: it stops where a teacher is not better than who always
            answers the most frequent class of these pictures.
        pictures: How many pictures are evaluated.

    Raises:
        ValueError: a teacher is worse than that.
    """

    def __init__(self, min_miou: float | None = None, pictures: int = 8):
        if min_miou is not None and not 0 <= min_miou <= 100:
            raise ValueError(f'`teacher_check.min_miou`: expected a percentage, got {min_miou!r}.')
        if isinstance(pictures, bool) or not isinstance(pictures, int) or pictures < 1:
            raise ValueError(f'`teacher_check.pictures`: expected a whole number >= 1, got {pictures!r}.')
        self.min_miou = min_miou
        self.pictures = pictures

    def before_train(self, runner) -> None:
        """Evaluate, log, and perhaps stop."""
        model = unwrapped(runner.model)
        if not hasattr(model, 'teacher_predictions') or runner.val_loop is None:
            return
        dataset = runner.val_loop.dataloader.dataset
        reads_logits = any(LOGITS in term.teacher_taps for term in model.terms.values())
        for index, teacher in enumerate(model.teachers):
            name = 'teacher' if len(model.teachers) == 1 else f'teacher[{index}]'
            if not reads_logits or not getattr(teacher, 'has_weights', False):
                continue
            number = getattr(teacher, 'num_classes', None)
            if teacher.class_map is not None or number not in (None, model.out_channels):
                continue
            self._check(runner, model, teacher, name, dataset)

    def _check(self, runner, model, teacher, name: str, dataset) -> None:
        number = min(self.pictures, len(dataset))
        runner.logger.info(f'Checking `{name}` on {number} validation pictures before training '
                           '(`teacher_check=False` leaves this out).')
        start = said = time.monotonic()
        # Processes that share a teacher's weights must run it equally often, and a picture of another size may have
        # more sliding windows; so they all look at the same pictures.
        rank, processes = (0, 1) if getattr(teacher, 'shared', False) else get_dist_info()
        places = np.linspace(0, len(dataset) - 1, number).round().astype(int)
        # Intersection, union and labels of each class.
        areas = torch.zeros(3, max(model.out_channels, 2), dtype=torch.float64)
        for turn in range(rank, number, processes):
            areas += _areas(model, teacher, dataset[int(places[turn])], areas.shape[1])
            if time.monotonic() - said > _PATIENCE:
                said = time.monotonic()
                runner.logger.info(f'Checking `{name}`: {min(turn + processes, number)} of {number} pictures.')
        if processes > 1:
            all_reduce(areas)
        if not areas[2].any():
            runner.logger.info(f'`{name}` was not checked: these pictures have no labels.')
            return
        intersection, union = areas[:2, areas[1] > 0]
        miou = 100 * (intersection / union).mean().item()
        frequent, constant = _most_frequent(areas[2])
        names = (getattr(dataset, 'metainfo', None) or {}).get('classes') or range(areas.shape[1])
        runner.logger.info(f'`{name}` has {miou:.2f} mIoU on {number} validation pictures; always answering '
                           f'{names[frequent]!r} has {constant:.2f}. The check took {time.monotonic() - start:.1f} s.')
        self._judge(name, miou, number, constant, names[frequent])

    def _judge(self, name: str, miou: float, number: int, constant: float, frequent: str | int) -> None:
        if self.min_miou is not None:
            useless, limit = miou < self.min_miou, f'teacher_check.min_miou is {self.min_miou}'
        else:
            # Where one class is all that there is, its name is the right answer.
            useless = miou <= constant < 100
            limit = f'which is not better than always answering {frequent!r} ({constant:.2f})'
        if useless:
            raise ValueError(
                f'`{name}`: {miou:.2f} mIoU on {number} validation pictures, {limit}. Usual causes: weights of another '
                "config, labels in another order, another normalisation or order of channels in the teacher's "
                "data_preprocessor. tools/test.py with the teacher's own config and checkpoint shows whether it is the "
                'teacher; --cfg-options teacher_check=False trains all the same.')


def _areas(model, teacher, sample: dict, num_classes: int) -> Tensor:
    """Intersection, union and number of labels of each class in a picture, (3, C); 0 where it has no label map."""
    from mmseg.evaluation import IoUMetric
    prediction, = model.teacher_predictions(teacher, pseudo_collate([sample]))
    if prediction.labels is None:
        return torch.zeros(3, num_classes, dtype=torch.float64)
    intersection, union, _, labels = IoUMetric.intersect_and_union(
        prediction.predicted.cpu(), prediction.labels.cpu(), num_classes, model.last_head.ignore_index)
    return torch.stack([intersection, union, labels]).double()


def _most_frequent(labels: Tensor) -> tuple[int, float]:
    """The most frequent class, and the mIoU in percent of who always answers it."""
    frequent = int(labels.argmax())
    return frequent, 100 * (labels[frequent] / labels.sum()).item() / max(int((labels > 0).sum()), 1)
