"""Knowledge distillation for mmsegmentation.

Importing this package is light: it imports mmengine alone and registers nothing yet. The registries in
:mod:`mmseg_kd.registry` import the rooms they need the first time a config names ``mmseg_kd.<Name>``.
"""
from mmengine.config.utils import MODULE2PACKAGE

from .version import __version__

# mmengine resolves 'mmseg::...' through the distribution name 'mmsegmentation', which the maintained distribution
# (onedl-mmsegmentation) does not have; `mmengine.hub` would even pip-install the old one over it. The module name is
# accepted as well and is the same for both distributions. So it is with mmpretrain.
MODULE2PACKAGE['mmseg'] = 'mmseg'
MODULE2PACKAGE['mmpretrain'] = 'mmpretrain'
# 'mmseg_kd::...' names our own configs, which lie under `.mim`.
MODULE2PACKAGE['mmseg_kd'] = 'mmseg_kd'

__all__ = ['__version__']
