"""A teacher that knows nothing is found out before training."""
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dataset import pseudo_collate
from mmengine.dist import all_reduce, get_dist_info
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from mmseg_kd.registry import HOOKS

__all__ = ['TeacherCheckHook']


@HOOKS.register_module()
class TeacherCheckHook(Hook):
    """Evaluate the teacher on a few validation pictures before training, on the logits that distillation sees.

    Wrong weights, another order of the labels, or pictures normalised in another way leave a teacher near chance (1 to
    3 mIoU with 19 classes), and days of training behind it. The mIoU is that of mmseg's ``IoUMetric`` over the classes
    that occur, on pictures spread evenly over the validation split; processes share the pictures. It does nothing for
    models without a teacher, for a teacher without a checkpoint (random weights, as asked) or from a cache, and without
    validation.
    ``tools/train.py`` adds this hook to every run with what ``teacher_check=dict(...)`` says in the config;
    ``--cfg-options teacher_check=False`` leaves it out.

    Args:
        min_miou: Training stops below it, in percent. The default is cautious: it stops a teacher near chance, not a
            weak one.
        pictures: How many pictures are evaluated.

    Raises:
        ValueError: the teacher is below ``min_miou``.
    """

    def __init__(self, min_miou: float = 5., pictures: int = 8):
        if not 0 <= min_miou <= 100:
            raise ValueError(f'`teacher_check.min_miou`: expected a percentage, got {min_miou!r}.')
        if isinstance(pictures, bool) or not isinstance(pictures, int) or pictures < 1:
            raise ValueError(f'`teacher_check.pictures`: expected a whole number >= 1, got {pictures!r}.')
        self.min_miou = min_miou
        self.pictures = pictures

    def before_train(self, runner) -> None:
        """Evaluate, log, and perhaps stop."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        teacher = getattr(model, 'teacher', None)
        if not getattr(teacher, 'has_weights', False) or runner.val_loop is None:
            return
        dataset = runner.val_loop.dataloader.dataset
        number = min(self.pictures, len(dataset))
        rank, processes = get_dist_info()
        areas = torch.zeros(2, getattr(model, 'num_classes', 0), dtype=torch.float64)
        for index in np.linspace(0, len(dataset) - 1, number).round().astype(int)[rank::processes]:
            if not _add_areas(model, dataset[int(index)], areas):
                return  # no segmentation
        all_reduce(areas)
        intersection, union = areas[:, areas[1] > 0]
        miou = 100 * (intersection / union).mean().item() if union.numel() else float('nan')
        runner.logger.info(f'The teacher has {miou:.2f} mIoU on {number} validation pictures.')
        if miou < self.min_miou:
            raise ValueError(
                f'`teacher`: {miou:.2f} mIoU on {number} validation pictures, teacher_check.min_miou is '
                f'{self.min_miou}. Usual causes: weights of another config, labels in another order, another '
                "normalisation or order of channels in the teacher's data_preprocessor. tools/test.py with the "
                "teacher's own config and checkpoint shows whether it is the teacher; "
                '--cfg-options teacher_check=False trains all the same.')


@torch.no_grad()
def _add_areas(model, sample: dict, areas: torch.Tensor) -> bool:
    """Add a picture's intersections and unions per class; False where it has no label map."""
    data = model.data_preprocessor(pseudo_collate([sample]), False)
    label = getattr(data['data_samples'][0], 'gt_sem_seg', None)
    if label is None:
        return False
    from mmseg.evaluation import IoUMetric
    label = label.data.squeeze(0).cpu()
    logits = model.teacher(data['inputs'], data['data_samples'], {'logits'})['logits']
    # Logits that a loss would upsample itself.
    logits = (logits if isinstance(logits, torch.Tensor) else logits.computed()).float()
    logits = F.interpolate(logits, size=label.shape, mode='bilinear', align_corners=False)
    intersection, union, _, _ = IoUMetric.intersect_and_union(
        logits.argmax(1)[0].cpu(), label, areas.shape[1], model.last_head.ignore_index)
    areas += torch.stack([intersection, union]).double()
    return True
