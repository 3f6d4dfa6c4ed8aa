"""Knowledge distillation for mmsegmentation.

Importing this package is light: it only imports mmengine, and registers nothing yet. The registries in
:mod:`mmseg_kd.registry` import the rooms they need the first time a config names ``mmseg_kd.<Name>``, and so does
``from mmseg_kd import <Name>``: what a config can name has the same name in Python.
"""
from importlib import import_module

from .config_names import accept_config_names
from .mmpretrain_beside_transformers import leave_out_language_models
from .version import __version__

accept_config_names()
leave_out_language_models()

__all__ = ['__version__']

#: What a script calls instead of a command.
_FUNCTIONS = dict(distil='mmseg_kd.commands.distil', train='mmseg_kd.commands.training')


def __getattr__(name: str):
    """Import a public class when it is first asked for."""
    # Rooms and functions are written small; Python finds rooms itself.
    if name in _FUNCTIONS:
        found = getattr(import_module(_FUNCTIONS[name]), name)
    else:
        found = import_module('mmseg_kd.registry').class_named(name) if name[:1].isupper() else None
    if found is None:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    globals()[name] = found
    return found
