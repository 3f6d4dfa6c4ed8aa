import json
import numbers
from pathlib import Path

from mmseg_kd.functional import gdkd_loss
from mmseg_kd.functional.gdkd import check_choice_of_k
from mmseg_kd.registry import MODELS

from .base import DistillationLoss


def load_topk_table(path: str | Path) -> tuple[int, ...]:
    """Read k per class from a JSON file: a list, or the object that ``tools/analysis/measure_topk.py`` writes."""
    try:
        table = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f'`k` must be an integer, a table or a JSON file with a table, got {str(path)!r}, which '
                         f'cannot be read: {error}') from error
    table = table.get('k') if isinstance(table, dict) else table
    if not isinstance(table, list):
        raise ValueError(f'`k` must name a JSON file with a list or with an object whose "k" is one, got {str(path)!r}')
    return tuple(table)


@MODELS.register_module()
class GDKDLoss(DistillationLoss):
    """Generalized decoupled knowledge distillation as a module, see :func:`~mmseg_kd.functional.gdkd_loss`.

    ``k`` may also be the path of a JSON file with one k per class, as ``tools/analysis/measure_topk.py`` writes it. The
    file is read once, here. With a table the loss needs a target.

    Example:
        >>> import torch
        >>> loss = GDKDLoss(k=2, w1=1.)
        >>> loss(torch.zeros(1, 4), torch.tensor([[4., 3., 1., 0.]]))
        tensor(2.1668)
    """

    function = staticmethod(gdkd_loss)
    parts = dict(
        between=dict(w0=1., w1=0., w2=0.), within_top=dict(w0=0., w1=1., w2=0.), within_rest=dict(w0=0., w1=0., w2=1.))

    def __init__(self, **settings) -> None:
        if isinstance(settings.get('k'), (str, Path)):
            settings['k'] = load_topk_table(settings['k'])
        super().__init__(**settings)
        check_choice_of_k(self.k, self.ratio, self.k_max, self.strategy)
        self.needs_target = not isinstance(self.k, numbers.Integral)
