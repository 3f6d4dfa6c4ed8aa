"""What a segmentor says about a picture, as mmseg's own evaluation sees it: the one place that knows.

mmseg pads pictures at test time (``data_preprocessor.test_cfg``), resizes them in the test pipeline, slides a window
over them (``test_cfg.mode='slide'``), and compares what comes out with the labels at the picture's own size. Whatever
looks at predictions (the teacher check, the teacher's cache, the report, the choice of k) asks here.
"""
from collections.abc import Iterator
from typing import NamedTuple

import torch
from mmseg.models.utils import resize
from torch import Tensor, nn
from torch.nn import functional as F

from mmseg_kd.functional import Upsampled
from mmseg_kd.functional.upsampled import at_full_size
from mmseg_kd.taps import LOGITS

from .heads import as_logits, predicts_scores

__all__ = ['Prediction', 'TeacherAnswer', 'ask_teacher', 'labels_as_seen', 'predict', 'predict_of_teacher',
           'small_map']


class Prediction(NamedTuple):
    """What a segmentor says about one picture.

    Attributes:
        logits: (C, H, W) class logits at the picture's own size. A single sigmoid channel z becomes the two channels
            (0, z). Of a head that classifies masks they are the logarithm of its scores, see
            :func:`~.heads.as_logits`.
        predicted: (H, W) int64, the class that mmseg's evaluation counts.
        labels: (H, W) int64, the picture's labels; None without.
    """

    logits: Tensor
    predicted: Tensor
    labels: Tensor | None


class TeacherAnswer(NamedTuple):
    """A teacher's logits of one picture, before they are brought to the picture's own size.

    Attributes:
        logits: (1, C, H, W) over the whole input: the picture at the top left, padding below and to the right.
        seen: (h, w), the size that the teacher saw the picture at.
    """

    logits: Tensor | Upsampled
    seen: tuple[int, int]


@torch.no_grad()
def predict(model: nn.Module, data: dict) -> list[Prediction]:
    """Predictions of a plain segmentor, by its own ``predict``, which its evaluation uses.

    Args:
        model: An mmseg segmentor in eval mode.
        data: A batch as the data loader gives it; it stays as it was, so that several models may see it.

    Raises:
        ValueError: the labels have another size than the picture.
    """
    # A preprocessor notes its padding in the data samples, where the next model would find it.
    samples = [sample.new() for sample in data['data_samples']]
    data = model.data_preprocessor(dict(inputs=data['inputs'], data_samples=samples), False)
    head = _head(model)
    predictions = []
    for sample in model.predict(data['inputs'], data['data_samples']):
        values = sample.seg_logits.data.float()
        if len(values) == 1:
            # mmseg has taken the sigmoid; at 1 its inverse would be infinite.
            logits = _two_classes(torch.logit(values, eps=torch.finfo(values.dtype).eps))
        else:
            logits = as_logits(head, values)
        predictions.append(_prediction(logits, sample.pred_sem_seg.data[0].long(), sample))
    return predictions


@torch.no_grad()
def predict_of_teacher(guest, preprocessor: nn.Module, data: dict) -> list[Prediction]:
    """Predictions of a teacher as it stands in the student's training, by the rules of mmseg's evaluation.

    Args:
        guest: A teacher (see :class:`mmseg_kd.teachers.Teacher`): what it is made of does not matter.
        preprocessor: The student's data preprocessor.
        data: A batch as the data loader gives it; it stays as it was.

    Raises:
        ValueError: the labels have another size than the picture.
    """
    head = _head(guest.model)
    scores = predicts_scores(head)
    predictions = []
    for answer, sample in zip(ask_teacher(guest, preprocessor, data), data['data_samples'], strict=True):
        values = at_full_size(answer.logits).float()[..., :answer.seen[0], :answer.seen[1]]
        values = values.exp() if scores else values
        meta = sample.metainfo
        if meta.get('flip'):
            values = values.flip(3 if meta.get('flip_direction') == 'horizontal' else 2)
        values = resize(values, size=tuple(meta.get('ori_shape', answer.seen))[:2], mode='bilinear',
                        align_corners=guest.align_corners, warning=False)[0]
        if len(values) == 1:
            predicted = (values[0].sigmoid() > getattr(head, 'threshold', 0.5)).long()
            logits = _two_classes(values)
        else:
            predicted, logits = values.argmax(0), as_logits(head, values)
        predictions.append(_prediction(logits, predicted, sample))
    return predictions


@torch.no_grad()
def ask_teacher(guest, preprocessor: nn.Module, data: dict) -> list[TeacherAnswer]:
    """A teacher's logits of pictures, padded and looked at through a sliding window as its own config wants it.

    Args:
        guest: See :func:`predict_of_teacher`.
        preprocessor: The student's data preprocessor.
        data: A batch of pictures of one size as the data loader gives it; it stays as it was.

    Returns:
        For each picture, the small map that the teacher would only resize, or the full one where there is none.
    """
    samples = [sample.new() for sample in data['data_samples']]
    data = preprocessor(dict(inputs=data['inputs'], data_samples=samples), False)
    inputs, samples = data['inputs'], data['data_samples']
    # What the student is padded to is not what the teacher is padded to.
    right, bottom = samples[0].metainfo.get('img_padding_size', (0, 0, 0, 0))[1::2]
    inputs = inputs[..., :inputs.shape[2] - bottom, :inputs.shape[3] - right]
    seen = tuple(inputs.shape[2:])
    inputs = _padded(guest.model, inputs)
    windows = _windows(guest.model, tuple(inputs.shape[2:]))
    if windows is None:
        logits = _ask(guest, inputs, samples, seen, (0, 0))
    else:
        logits = _mean_of_windows(guest, inputs, samples, seen, windows)
    if isinstance(logits, Upsampled):
        return [TeacherAnswer(logits._replace(logits=each[None]), seen) for each in logits.logits]
    return [TeacherAnswer(each[None], seen) for each in logits]


def small_map(answer: TeacherAnswer) -> Upsampled:
    """The answer as a map small enough to be stored: the teacher's own, or every fourth position of the full one.

    What has no small map is the picture's without padding, and interpolated without ``align_corners``.
    """
    logits, seen = answer
    if isinstance(logits, Upsampled):
        return logits
    logits = logits[..., :seen[0], :seen[1]].float()
    # A quarter is as much as a head has. Averaged around the very places where an interpolation takes it to lie.
    size = [-(-side // 4) for side in seen]
    return Upsampled(F.interpolate(logits, size, mode='bilinear', align_corners=False, antialias=True), seen)


def labels_as_seen(sample, size: tuple[int, int], ignore_index: int = 255) -> Tensor:
    """Labels (H, W) of a picture brought to the input that the model saw: resized as it was, and padded.

    Args:
        sample: Data sample that the data preprocessor has returned.
        size: (H, W) of the input.
        ignore_index: The label of the padding.
    """
    right, bottom = sample.metainfo.get('img_padding_size', (0, 0, 0, 0))[1::2]
    labels = sample.gt_sem_seg.data[None].double()
    labels = F.interpolate(labels, size=(size[0] - bottom, size[1] - right), mode='nearest')
    return F.pad(labels, (0, right, 0, bottom), value=ignore_index)[0, 0].long()


def _head(model: nn.Module) -> nn.Module | None:
    head = getattr(model, 'decode_head', None)
    return head[-1] if isinstance(head, nn.ModuleList) else head


def _two_classes(channel: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(channel), channel])


def _prediction(logits: Tensor, predicted: Tensor, sample) -> Prediction:
    labels = sample.gt_sem_seg.data[0].long().to(predicted.device) if 'gt_sem_seg' in sample else None
    if labels is not None and labels.shape != predicted.shape:
        raise ValueError(
            f'`val_dataloader.dataset.pipeline`: the labels of {sample.metainfo.get("img_path", "a picture")} have the '
            f'size {tuple(labels.shape)}, its prediction {tuple(predicted.shape)}; mmseg compares them at the size of '
            'the file. Put LoadAnnotations behind the transforms that resize the picture.')
    return Prediction(logits, predicted, labels)


def _padded(model: nn.Module, inputs: Tensor) -> Tensor:
    """Images with the padding that a model's own data preprocessor adds at test time, below and to the right."""
    preprocessor = getattr(model, 'data_preprocessor', None)
    settings = getattr(preprocessor, 'test_cfg', None) or {}
    height, width = inputs.shape[2:]
    if settings.get('size') is not None:
        rows, columns = (max(side, wanted) for side, wanted in zip((height, width), settings['size'], strict=True))
    else:
        divisor = settings.get('size_divisor') or 1
        rows, columns = (-(-side // divisor) * divisor for side in (height, width))
    return F.pad(inputs, (0, columns - width, 0, rows - height), value=getattr(preprocessor, 'pad_val', 0))


def _ask(guest, inputs: Tensor, samples: list, seen: tuple[int, int], corner: tuple[int, int]) -> Tensor | Upsampled:
    """The teacher's logits of inputs whose top left is at a corner of the padded picture."""
    height, width = inputs.shape[2:]
    bottom, right = (max(0, first + side - whole)
                     for first, side, whole in zip(corner, (height, width), seen, strict=True))
    for sample in samples:
        sample.set_metainfo(dict(img_padding_size=(0, right, 0, bottom), pad_shape=inputs.shape[2:]))
    return guest(inputs, samples, {LOGITS})[LOGITS]


def _windows(model: nn.Module, size: tuple[int, int]) -> list[tuple[slice, slice]] | None:
    """Where mmseg's sliding window stands, rows outermost; None where the picture is looked at as a whole."""
    settings = getattr(model, 'test_cfg', None) or {}
    if settings.get('mode', 'whole') != 'slide':
        return None

    def places(length: int, window: int, stride: int) -> Iterator[slice]:
        for index in range(max(length - window + stride - 1, 0) // stride + 1):
            end = min(index * stride + window, length)
            yield slice(max(end - window, 0), end)

    rows, columns = (list(places(*each)) for each in zip(size, settings['crop_size'], settings['stride'], strict=True))
    return [(row, column) for row in rows for column in columns]


def _mean_of_windows(guest, inputs: Tensor, samples: list, seen: tuple[int, int], windows) -> Tensor:
    head = _head(guest.model)
    scores = predicts_scores(head)
    total = count = None
    for rows, columns in windows:
        logits = at_full_size(_ask(guest, inputs[..., rows, columns], samples, seen, (rows.start, columns.start)))
        if total is None:
            total = logits.new_zeros(*logits.shape[:2], *inputs.shape[2:])
            count = logits.new_zeros(inputs.shape[2:])
        # What mmseg averages over windows that overlap.
        total[..., rows, columns] += logits.exp() if scores else logits
        count[rows, columns] += 1
    return as_logits(head, total / count)
