"""What networks from outside OpenMMLab share, as teachers."""
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Real
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn import functional as F

from mmseg_kd.functional import Upsampled

from .guest import Teacher
from .host import Host
from .normalization import Renormalize
from .probe import small_pass
from .speed import TeacherSpeed, read_speed

__all__ = ['IMAGE_SETTINGS', 'NETWORK_SETTINGS', 'ImageFormat', 'call_plainly', 'guest_of', 'only_size', 'pick',
           'read_image_format', 'refuse_unknown']

#: How the network wants its images.
IMAGE_SETTINGS = ('mean', 'std', 'scale', 'rgb', 'size')
#: What every network may be told.
NETWORK_SETTINGS = (*IMAGE_SETTINGS, 'classes', 'shard', *TeacherSpeed._fields)
# Dimensions that logits may have.
_DIMS = {4: 'maps of logits (N, C, h, w)', 2: 'one vector of logits for each image, (N, C)'}


class ImageFormat(NamedTuple):
    """How a network wants its images, in the words of OpenMMLab's data preprocessors.

    Args:
        mean: (C, 1, 1), of values 0 .. 255, as for ``std``.
        std: (C, 1, 1).
        to_rgb: Whether the channels are red, green, blue; False: blue, green, red, as OpenMMLab's pipelines load them.
        size: (H, W) that images are resized to; None: they stay as they are.
        pad_val: What padding is, behind the normalisation.
    """

    mean: Tensor
    std: Tensor
    to_rgb: bool = True
    size: tuple[int, int] | None = None
    pad_val: float = 0.


def refuse_unknown(settings: dict, known: Collection[str], kind: str) -> None:
    """Refuse settings that a kind of teacher does not know.

    Raises:
        ValueError: there is one; the message has those that it knows.
    """
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(f'`teacher`: unknown setting {unknown} of type={kind!r}; expected '
                         f'{", ".join(f"`{name}`" for name in known)}.')


def read_image_format(settings: dict, known: dict | None = None, channels: int | None = None,
                      setting: str = 'teacher') -> ImageFormat:
    """Read ``mean``, ``std``, ``scale``, ``rgb`` and ``size``: a network sees (image / scale - mean) / std.

    Args:
        settings: Those of ``teacher``. ``scale`` is 255 unless it is given, so that ``mean`` and ``std`` are of values
            0 .. 1; ``rgb=True`` is the order of channels; ``size=(H, W)`` is for networks that take no other.
        known: The same settings as the network's own files say, which ``settings`` go before.
        channels: Number of channels that the network takes, if that is known.
        setting: Where ``settings`` were given, for messages.

    Raises:
        ValueError: a value outside of its domain, or ``mean`` and ``std`` that nobody gives.
    """
    given = {**(known or {}), **{name: settings[name] for name in IMAGE_SETTINGS if name in settings}}
    scale = given.get('scale', 255.)
    if not _is_number(scale) or scale <= 0:
        raise ValueError(f'`{setting}.scale`: expected a number above 0, what images 0 .. 255 are divided by, got '
                         f'{scale!r}.')
    rgb = given.get('rgb', True)
    if not isinstance(rgb, bool):
        raise ValueError(f'`{setting}.rgb`: expected True (red, green, blue) or False (blue, green, red), got {rgb!r}.')
    size = given.get('size')
    if size is not None and (not isinstance(size, (list, tuple)) or len(size) != 2 or not all(
            type(side) is int and side > 0 for side in size)):
        raise ValueError(f'`{setting}.size`: expected (height, width) of the only images that the network takes, got '
                         f'{size!r}.')
    values = {}
    for name in ('mean', 'std'):
        value = given.get(name)
        if not isinstance(value, (list, tuple)) or not value or not all(map(_is_number, value)) or (
                name == 'std' and min(value) <= 0):
            raise ValueError(f'`{setting}.{name}`: expected one number for each channel, so that the network sees '
                             f'(image / scale - mean) / std with scale={scale:g}, got {value!r}. Networks of ImageNet '
                             'have mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]; one that takes values '
                             '0 .. 1 as they are has mean=[0., 0., 0.], std=[1., 1., 1.].')
        values[name] = torch.tensor(value, dtype=torch.float32).reshape(-1, 1, 1) * scale
    if len(values['mean']) != len(values['std']) or (channels is not None and len(values['mean']) != channels):
        takes = '' if channels is None else f', and the network takes images of {channels}'
        raise ValueError(f'`{setting}.mean`, `{setting}.std`: expected one number for each channel, got '
                         f'{len(values["mean"])} and {len(values["std"])}{takes}.')
    if values['mean'].max() > 255 * 1.01:
        raise ValueError(f'`{setting}.mean`: {list(given["mean"])} times scale={scale:g} lies above 255, where no '
                         'image is. Give mean and std of images that were divided by `scale`, or scale=1.')
    return ImageFormat(values['mean'], values['std'], rgb, None if size is None else tuple(size))


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def pick(value: object, output: str | int | None, setting: str = 'teacher.output') -> Tensor:
    """Take the logits out of what a network returns.

    Args:
        value: What it returns.
        output: A key, an index, or names and indices joined by dots (``'out'``, ``0``, ``'decoder.maps.1'``); None: it
            returns the logits themselves.
        setting: Where ``output`` was given, for the message.

    Raises:
        ValueError: there is no such output, or it is not a tensor.
    """
    found = value
    whole = output is None or (isinstance(value, Mapping) and output in value)
    for part in () if output is None else (output, ) if whole else str(output).split('.'):
        if isinstance(found, Mapping) and part in found:
            found = found[part]
        elif isinstance(found, (list, tuple)) and str(part).isdigit() and int(part) < len(found):
            found = found[int(part)]
        elif isinstance(part, str) and not isinstance(found, Tensor) and hasattr(found, part):
            found = getattr(found, part)
        else:
            raise ValueError(f'`{setting}`: the network returns {_what(value)}, in which there is no {output!r}. '
                             f'{_way_out(value)}')
    if not isinstance(found, Tensor):
        at = '' if output is None else f' at {output!r}'
        raise ValueError(f'`{setting}`: expected a tensor of logits{at}, got {_what(found)}. {_way_out(found)}')
    return found


def _what(value: object) -> str:
    if isinstance(value, Tensor):
        return f'a tensor of shape {tuple(value.shape)}'
    if isinstance(value, Mapping):
        return f'a {type(value).__name__} with the keys {list(value)}'
    return f'a {type(value).__name__}' + (f' of {len(value)}' if isinstance(value, (list, tuple)) else '')


def _way_out(value: object) -> str:
    if isinstance(value, Tensor):
        return 'Remove `output`.'
    if isinstance(value, Mapping):
        return 'Name one of the keys.'
    return 'Give the index of one of them.' if isinstance(value, (list, tuple)) else 'Name one of its attributes.'


def call_plainly(network: nn.Module, images: Tensor) -> object:
    """``network(images)``."""
    return network(images)


def only_size(network: nn.Module, call: Callable[[nn.Module, Tensor], object], channels: int | None,
              size: int | Sequence[int] | None) -> dict:
    """``dict(size=(H, W))`` of a network that takes no images but those of the size that it was made for, else ``{}``.

    Args:
        network: The network, which is left in eval mode.
        call: Runs it on images.
        channels: Of the images; None: 3.
        size: What it was made for; None: not known.
    """
    if size is None:
        return {}
    size = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
    # Some take other sizes, but only squares.
    image = torch.zeros(1, channels or 3, 128, 192)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            call(network.eval(), image)
    except Exception:  # whatever a network says to a size that does not suit it
        print_log(f'The teacher takes images of {size[0]}x{size[1]} only: its images are resized to that '
                  '(`teacher.size`).', logger='current', level=logging.INFO)
        return dict(size=size)
    return {}


def guest_of(network: nn.Module, output: Callable[[object, tuple[int, int]], Tensor], images: ImageFormat,
             settings: dict, host: Host, setting: str, has_weights: bool, classes: Sequence[str] | None = None,
             call: Callable[[nn.Module, Tensor], object] = call_plainly) -> Teacher:
    """Make a network a guest, and see in one small forward pass what it returns.

    Args:
        network: The network.
        output: Takes the logits out of what it returns, (N, c, h, w) or (N, c); it is told (H, W) as well.
        images: How it wants its images.
        settings: Those of ``teacher`` that are common to all networks.
        host: What is known of the student.
        setting: What names the network in the config, for messages.
        has_weights: Whether the weights are trained ones.
        classes: Names of the classes of the logits, as far as the network's own files say; ``settings`` go before.
        call: Runs the network on images (N, C, H, W).

    Raises:
        ValueError: the network does not run, or ``classes`` does not fit what it returns.
    """
    def run(inputs: Tensor) -> object:
        if images.size is not None:
            inputs = F.interpolate(inputs, images.size, mode='bilinear', align_corners=False)
        return call(network, inputs)

    def logits(model: nn.Module, inputs: Tensor) -> Tensor | Upsampled:
        size = tuple(inputs.shape[2:])
        value = output(run(inputs), size)
        return Upsampled(value, size) if value.dim() == 4 and value.shape[2:] != size else value

    try:
        returned, size = small_pass(lambda image: (run(image), tuple(image.shape[2:])), network, len(images.mean))
    except ValueError as error:
        raise ValueError(f'`{setting}`: {error}. If it takes images of one size only, say which: size=(H, W).') from (
            error)
    num_classes = no_logits = None
    try:
        value = output(returned, size)
    except ValueError as error:
        no_logits = str(error)
    else:
        if value.dim() not in (_DIMS if host.logit_dims is None else (host.logit_dims, )):
            wanted = ' or '.join(text for dims, text in _DIMS.items() if host.logit_dims in (None, dims))
            no_logits = f'`{setting}`: expected {wanted}, got {_what(value)}'
        else:
            num_classes = value.shape[1]
    return Teacher(network, logits, Renormalize(host.preprocessor, images), read_speed(settings), has_weights,
                   settings.get('shard', False), _class_names(settings.get('classes', classes), num_classes),
                   num_classes, no_logits, features=lambda model, inputs, taps: run(inputs), setting=setting)


def _class_names(names: object, number: int | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"`teacher.classes`: expected the names of the teacher's classes, got {names!r}.")
    if number is not None and len(names) != number:
        raise ValueError(f"`teacher.classes`: expected one name for each of the {number} channels of the teacher's "
                         f'logits, got {len(names)}.')
    return tuple(names)
