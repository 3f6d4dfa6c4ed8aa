"""A teacher that is any ``nn.Module``: torchvision's, segmentation_models_pytorch's, one's own."""
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import torch
from torch import nn

from .guest import Teacher
from .host import Host
from .network import NETWORK_SETTINGS, guest_of, pick, read_image_format, refuse_unknown
from .probe import input_channels
from .weights import load_into, read_weights

__all__ = ['build_module_teacher']

_SETTINGS = ('build', 'arguments', 'checkpoint', 'sha256', 'trusted', 'output', *NETWORK_SETTINGS)
# Packages that an extra of ours brings.
_EXTRAS = dict(torchvision='cls', segmentation_models_pytorch='smp', timm='timm', transformers='hf', mmpretrain='cls')


def build_module_teacher(settings: dict, host: Host) -> Teacher:
    """Build the teacher of ``teacher=dict(type='module', build='package.module:callable', ...)``.

    The student's random numbers are untouched.

    Args:
        settings: ``build`` makes an ``nn.Module`` and is named ``'package.module:name'`` or ``'folder/file.py:name'``
            (or is a callable, in a config that is pure Python); it is called with ``arguments``. ``checkpoint`` (file
            or URL, with ``sha256`` and ``trusted`` as for any teacher) fills the module; without one it keeps the
            weights that ``build`` gave it. ``output`` says where the logits are in what it returns, see
            :func:`~.network.pick`. ``mean``, ``std``, ``scale``, ``rgb`` and ``size`` say how it wants its images, see
            :func:`~.network.read_image_format`. ``classes`` are the names of its classes.
        host: What is known of the student.

    Raises:
        ValueError: an unknown or missing setting, a module that is not built or does not run, or a checkpoint that
            does not fit.
    """
    refuse_unknown(settings, _SETTINGS, 'module')
    network = _built(settings.get('build'), settings.get('arguments') or {})
    images = read_image_format(settings, channels=input_channels(network))
    output = settings.get('output')
    if output is not None and (isinstance(output, bool) or not isinstance(output, (str, int))):
        raise ValueError(f'`teacher.output`: expected a key, an index or names joined by dots, got {output!r}.')
    checkpoint = settings.get('checkpoint')
    if checkpoint is not None:
        weights = read_weights(checkpoint, sha256=settings.get('sha256'), trusted=settings.get('trusted', False))
        load_into(network, weights, 'teacher.checkpoint', checkpoint, 'teacher.build')
    # Where there is no checkpoint, `build` may have filled the network; the check before training shows it.
    return guest_of(network, lambda value, size: pick(value, output), images, settings, host, 'teacher.build',
                    has_weights=True)


def _built(build: str | Callable, arguments: dict) -> nn.Module:
    function = build if callable(build) else _named(build)
    if not isinstance(arguments, dict):
        raise ValueError(f'`teacher.arguments`: expected a dict of arguments of `teacher.build`, got {arguments!r}.')
    try:
        with torch.random.fork_rng(devices=[]):
            network = function(**arguments)
    except Exception as error:
        raise ValueError(f'`teacher.build`: {build!r} with the arguments {dict(arguments)} ended with '
                         f'{type(error).__name__}: {error}. Correct `teacher.arguments`; if it wants to download '
                         'weights, switch that off there and give a `checkpoint`.') from error
    if not isinstance(network, nn.Module):
        raise ValueError(f'`teacher.build`: expected a callable that makes an nn.Module, {build!r} returned a '
                         f'{type(network).__name__}.')
    return network


def _named(build: object) -> Callable:
    expectation = "`teacher.build`: expected 'package.module:name' or 'folder/file.py:name'"
    where, _, name = build.rpartition(':') if isinstance(build, str) else ('', '', '')
    if not where or not name:
        raise ValueError(f"{expectation}, for instance 'torchvision.models.segmentation:deeplabv3_resnet50', got "
                         f'{build!r}.')
    try:
        found = _file(where, expectation) if where.endswith('.py') else import_module(where)
    except ImportError as error:
        package = where.split('.')[0]
        extra = f"mmseg_kd[{_EXTRAS[package]}]" if package in _EXTRAS else package
        raise ValueError(f'`teacher.build`: {where!r} does not import ({error}). Correct the name, or install what it '
                         f"is in: pip install '{extra}'") from error
    for part in name.split('.'):
        if not hasattr(found, part):
            raise ValueError(f'`teacher.build`: {where!r} has no {name!r}.')
        found = getattr(found, part)
    if not callable(found):
        raise ValueError(f'`teacher.build`: {build!r} is a {type(found).__name__}, nothing that can be called.')
    return found


def _file(path: str, expectation: str):
    """The module of a Python file, imported once."""
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise ValueError(f'{expectation}, got a file that does not exist, {path!r} (looked in {file}).')
    name = f'mmseg_kd_teacher_{file.stem}_{abs(hash(file)):x}'
    if name not in sys.modules:
        spec = spec_from_file_location(name, file)
        sys.modules[name] = module = module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
