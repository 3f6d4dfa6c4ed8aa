"""A teacher that is an ``nn.Module`` at hand: it is called as the student is."""
import functools
from collections.abc import Mapping

from torch import Tensor, nn

from .guest import Teacher
from .host import Host
from .network import pick, refuse_unknown
from .normalization import AS_IT_IS
from .speed import TeacherSpeed, read_speed

__all__ = ['Inputs', 'build_own_network_teacher', 'call_network', 'read_logits']

#: What a network is called with: one argument, named ones, or several.
Inputs = Tensor | Mapping[str, object] | tuple

_SETTINGS = ('network', 'output', 'classes', 'shard', *TeacherSpeed._fields)
# Where networks that return more than a tensor keep their logits: Hugging Face's, torchvision's.
_USUAL = ('logits', 'out')


def build_own_network_teacher(settings: dict | nn.Module, host: Host) -> Teacher:
    """Build the teacher of ``teacher=dict(network=module, output=None)``, or of the module itself.

    It sees the student's inputs as they are; one with its own normalisation is ``type='module'``.

    Raises:
        ValueError: an unknown setting, or a network that is not an ``nn.Module``.
    """
    settings = dict(network=settings) if isinstance(settings, nn.Module) else settings
    refuse_unknown(settings, _SETTINGS, 'network')
    network = settings['network']
    if not isinstance(network, nn.Module):
        raise ValueError(f'`teacher.network`: expected an nn.Module, got a {type(network).__name__}.')
    logits = functools.partial(read_logits, output=settings.get('output'), setting='teacher.output')
    return Teacher(network, logits, AS_IT_IS, read_speed(settings), shard=settings.get('shard', False),
                   classes=settings.get('classes'), setting='teacher')


def call_network(network: nn.Module, inputs: Inputs) -> object:
    """What a network returns for one argument, for named ones or for several."""
    if isinstance(inputs, Mapping):
        return network(**inputs)
    return network(*inputs) if isinstance(inputs, tuple) else network(inputs)


def read_logits(network: nn.Module, inputs: Inputs, output: str | int | None = None,
                setting: str = 'output') -> Tensor:
    """The logits of a network; see :func:`logits_in`."""
    return logits_in(call_network(network, inputs), output, setting)


def logits_in(returned: object, output: str | int | None = None, setting: str = 'output') -> Tensor:
    """The logits in what a network returned.

    Args:
        returned: That.
        output: Where they are, see :func:`~.network.pick`; None: it is the logits, or has them as ``logits`` or
            ``out``.
        setting: Where ``output`` was given, for messages.

    Raises:
        ValueError: they are not there.
    """
    if output is None and not isinstance(returned, (Tensor, tuple, list)):
        output = next((name for name in _USUAL if hasattr(returned, name) or (
            isinstance(returned, Mapping) and name in returned)), None)
    return pick(returned, output, setting)
