"""A teacher from timm: any of its networks, by its name, for its features or as a classifier."""
import difflib
import logging

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmseg_kd.registry import import_with_extra

from .guest import Teacher
from .host import Host
from .network import NETWORK_SETTINGS, call_plainly, guest_of, only_size, pick, read_image_format, refuse_unknown
from .probe import input_channels
from .weights import load_into, read_weights

__all__ = ['TimmNetwork', 'build_timm_teacher']

_SETTINGS = ('model', 'arguments', 'checkpoint', 'sha256', 'trusted', *NETWORK_SETTINGS)


class TimmNetwork(nn.Module):
    """A network of timm whose maps can be read at ``'features[0]'``, ``'features[1]'``, ...

    The maps are those of ``forward_intermediates``: the stages of a convolutional network, the blocks of a vision
    transformer, whose tokens are laid out as a map (N, C, h, w) without class and register tokens.

    Args:
        network: A model that ``timm.create_model`` made.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.features = nn.Identity()

    def forward(self, images: Tensor) -> Tensor | None:
        """Logits (N, classes) of images (N, C, H, W); None without a classifier."""
        final, maps = self.network.forward_intermediates(images)
        self.features(list(maps))
        return self.network.forward_head(final) if self.network.num_classes else None


def build_timm_teacher(settings: dict, host: Host) -> Teacher:
    """Build the teacher of ``teacher=dict(type='timm', model='NAME', checkpoint=FILE)``.

    Args:
        settings: ``model`` is a name of ``timm.list_models()``, built with ``arguments``. ``checkpoint`` (file or URL,
            with ``sha256`` and ``trusted`` as for any teacher) fills it; absent: random weights, with a warning.
            ``mean``, ``std`` and the like are those that timm knows of the model, unless they are given (see
            :func:`~.network.read_image_format`). A network that takes images of one size only is given that size.
        host: What is known of the student. Its terms read ``'features[i]'`` or any module's output; a classifier's may
            read the logits.

    Raises:
        ValueError: no such model, or weights that do not fit.
        ImportError: the extra ``timm`` is missing.
    """
    refuse_unknown(settings, _SETTINGS, 'timm')
    timm = import_with_extra('timm', 'timm', "`teacher`: type='timm'")
    name, arguments = settings.get('model'), settings.get('arguments') or {}
    if not isinstance(name, str) or not timm.is_model(name):
        near = difflib.get_close_matches(str(name), timm.list_models(), n=3, cutoff=0.5)
        raise ValueError(f'`teacher.model`: timm has no model {name!r}.{f" Near it are {near}." if near else ""} '
                         'timm.list_models() names them all.')
    network = TimmNetwork(_made(timm, name, dict(arguments)))
    checkpoint = settings.get('checkpoint')
    if checkpoint is not None:
        weights = read_weights(checkpoint, sha256=settings.get('sha256'), trusted=settings.get('trusted', False))
        load_into(network.network, weights, 'teacher.checkpoint', checkpoint, 'teacher.model')
    elif not arguments.get('pretrained'):
        print_log('The teacher has no `teacher.checkpoint`: it is distilled from with RANDOM weights.',
                  logger='current', level=logging.WARNING)
    says = network.network.pretrained_cfg
    channels = input_channels(network)
    known = {key: list(says[key]) for key in ('mean', 'std') if says.get(key)}
    size = arguments.get('img_size') or tuple(says['input_size'][1:])
    known |= only_size(network, call_plainly, channels, size)
    return guest_of(network, lambda value, size: pick(value, None, 'teacher.model'),
                    read_image_format(settings, known, channels), settings, host, 'teacher.model',
                    has_weights=checkpoint is not None or bool(arguments.get('pretrained')))


def _made(timm, name: str, arguments: dict) -> nn.Module:
    # Transformers that can interpolate their positions take images of any size then.
    for more in (dict(dynamic_img_size=True), {}):
        try:
            with torch.random.fork_rng(devices=[]):
                network = timm.create_model(name, **more | arguments)
            break
        except Exception as error:
            if not more or not isinstance(error, TypeError):
                raise ValueError(f'`teacher.arguments`: timm.create_model({name!r}, **{arguments}) ended with '
                                 f'{type(error).__name__}: {error}. If it wants to download weights, leave '
                                 '`pretrained` out and give a `checkpoint`.') from error
    if not hasattr(network, 'forward_intermediates'):
        raise ValueError(f"`teacher.model`: timm's {name!r} cannot return its maps (it has no forward_intermediates). "
                         "Build it by type='module', build='timm:create_model', and name its modules.")
    return network
