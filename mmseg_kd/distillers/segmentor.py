"""Distilled segmentors: mmseg's, with a teacher."""
import torch
from mmseg.models import EncoderDecoder
from mmseg.models.utils import resize
from mmseg.utils import add_prefix
from torch import Tensor, nn

from mmseg_kd.heads.main_logits import main_logits
from mmseg_kd.registry import MODELS

from .base import Distilled
from .taps import LOGITS, module_outputs, read_tap

__all__ = ['DistilledEncoderDecoder']


class DistilledSegmentor(Distilled):
    """What distilled segmentors share: dense logits against a label map."""

    scope = 'mmseg'

    @staticmethod
    def teacher_logits(model: nn.Module, inputs: Tensor) -> Tensor:
        """Class logits (N, C, H, W) of a segmentor in eval mode, at the size of its input (N, 3, H, W)."""
        size = inputs.shape[2:]
        metas = [dict(img_shape=size, pad_shape=size, ori_shape=size)] * len(inputs)
        return model.encode_decode(inputs, metas)

    def _check_classes(self, terms: nn.ModuleDict) -> None:
        teacher = self.teacher.model
        for term in terms.values():
            if LOGITS not in (term.student_tap, term.teacher_tap):
                continue
            if self.out_channels != teacher.out_channels:
                raise ValueError(
                    f'`teacher.config`: `{term.setting}` compares logits, so student and teacher must know the same classes; '
                    f'the student has {self.out_channels}, the teacher {teacher.out_channels}. Take a teacher of the same '
                    'data set, or set `decode_head.num_classes` of one of them.')
            if self.out_channels == 1:
                raise ValueError('`decode_head.out_channels`: a single sigmoid channel has no distribution over classes to '
                                 'distil; set out_channels=2 in student and teacher.')

    def _distill_losses(self, student: dict[str, Tensor], inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Run the teacher and compute every term.

        Args:
            student: Tap to tensor of the student; ``'logits'`` as its head returns them.
            inputs: Images (N, 3, H, W) as the student saw them.
            data_samples: Their data samples with ``gt_sem_seg``.

        Returns:
            ``distill.loss_<name>`` to a scalar, for each term.
        """
        teacher = self.teacher(inputs, data_samples, {term.teacher_tap for term in self.terms.values()})
        target = torch.stack([sample.gt_sem_seg.data for sample in data_samples]).squeeze(1)
        losses = {}
        for name, term in self.terms.items():
            of_student = read_tap(student, term.student_tap, term.setting, 'student')
            of_teacher = read_tap(teacher, term.teacher_tap, term.setting, 'teacher')
            # Logits are compared where the labels are, features where the student's are.
            size = target.shape[1:] if term.student_tap == LOGITS else of_student.shape[2:]
            losses[f'distill.loss_{name}'] = term.scale * term.loss(
                self._at(of_student, size), self._at(of_teacher, size), _nearest(target, size))
        return losses

    def _at(self, maps: Tensor, size) -> Tensor:
        if maps.shape[2:] == tuple(size):
            return maps
        return resize(maps, size=tuple(size), mode='bilinear', align_corners=self.align_corners, warning=False)


def _nearest(target: Tensor, size) -> Tensor:
    if target.shape[1:] == tuple(size):
        return target
    # Through float64, which holds every label exactly; mmseg resizes label maps the same way.
    return resize(target[:, None].double(), size=tuple(size), mode='nearest', warning=False)[:, 0].long()


@MODELS.register_module()
class DistilledEncoderDecoder(DistilledSegmentor, EncoderDecoder):
    """mmseg's ``EncoderDecoder``, distilled from a teacher while it trains.

    It *is* its student: same parameter names, checkpoints, inference. A training step runs the student once and the
    teacher once and adds one loss per distillation term to the student's own.

    Args:
        teacher: ``dict(config=..., checkpoint=...)``. ``config`` is a path, a ``'mmseg::...'`` name, a dict or a Config;
            ``checkpoint`` a file or URL (absent: random weights, with a warning).
        distill: ``dict(<name>=dict(loss=dict(type='mmseg_kd.DKDLoss', ...), on='logits'))``; ``on`` is ``'logits'``, a
            module's name, or a (student, teacher) pair of those.
        **kwargs: Arguments of ``EncoderDecoder``.

    Raises:
        ValueError: teacher, checkpoint or a term does not fit; the message names the setting and the way out.
    """

    def __init__(self, *args, teacher: dict, distill: dict, **kwargs):
        super().__init__(*args, **kwargs)
        self._init_distillation(teacher, distill, self.decode_head.ignore_index)

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Losses of the student and of every distillation term.

        Args:
            inputs: Images (N, 3, H, W).
            data_samples: Their data samples with ``gt_sem_seg``.
        """
        with module_outputs(self, [term.student_tap for term in self.terms.values()]) as outputs:
            features = self.extract_feat(inputs)
            head_outputs = self.decode_head(features)
            losses = add_prefix(self.decode_head.loss_by_feat(head_outputs, data_samples), 'decode')
            if self.with_auxiliary_head:
                losses.update(self._auxiliary_head_forward_train(features, data_samples))
        outputs[LOGITS] = main_logits(self.decode_head, head_outputs)
        losses.update(self._distill_losses(outputs, inputs, data_samples))
        return losses
