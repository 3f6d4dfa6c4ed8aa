"""Knowledge distillation for mmsegmentation.

Importing this package is light: it imports mmengine alone and registers nothing yet. The registries in
:mod:`mmseg_kd.registry` import the rooms they need the first time a config names ``mmseg_kd.<Name>``.
"""
from .config_names import accept_config_names
from .version import __version__

accept_config_names()

__all__ = ['__version__']
