"""Names in configs: of what ships with a package, like ``'mmseg_kd::demo/....py'``, and of what a ``type`` means."""
import functools

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

__all__ = ['accept_config_names', 'type_name']

_OURS = 'mmseg_kd'


def accept_config_names() -> None:
    """Let mmengine find configs by the names of modules, and read ours as configs of the library they are for.

    mmengine resolves ``'mmseg::...'`` through the distribution name ``mmsegmentation``, which the maintained
    distribution (onedl-mmsegmentation) does not have; ``mmengine.hub`` would even pip-install the old one over it. The
    module name is accepted as well and is the same for both distributions. So it is with mmpretrain, mmdet, and this
    package.

    What comes from a base ``'mmseg_kd::...'`` would be marked to be built in the scope ``mmseg_kd``, where mmseg's
    classes are not known; as in a base that is named by its path, the config's own ``default_scope`` shall count.
    """
    for module in ('mmseg', 'mmpretrain', 'mmdet', _OURS):
        MODULE2PACKAGE[module] = module
    # mmengine has no public place for it; tests/test_main.py sees it if the private one is gone.
    plain = Config.__dict__.get('_get_cfg_path')
    if not isinstance(plain, staticmethod) or hasattr(plain.__func__, '__wrapped__'):
        return

    @functools.wraps(plain.__func__)
    def path_and_scope(cfg_path, filename):
        path, scope = plain.__func__(cfg_path, filename)
        return path, None if scope == _OURS else scope

    Config._get_cfg_path = staticmethod(path_and_scope)


def type_name(settings: dict | str | type) -> str:
    """Name of the class that a ``type`` means, without scope or module.

    Args:
        settings: A dict with the key ``type``, or a ``type`` itself: a name with or without scope, the dotted path that
            a dumped pure-Python config has, or a class or function, as pure-Python configs write it.

    Returns:
        The name; an empty one where there is no ``type``.
    """
    kind = settings.get('type') if isinstance(settings, dict) else settings
    return kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', '')
