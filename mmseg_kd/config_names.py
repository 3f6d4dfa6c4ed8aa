"""Names in configs: of what ships with a package, like ``'mmseg_kd::demo/....py'``, and of what a ``type`` means."""
import functools

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

__all__ = ['accept_config_names', 'name_types', 'type_name']

_OURS = 'mmseg_kd'
# Whose classes have their own names; '' is a name that a registry knows.
_KNOWN = ('', 'torch', 'mmengine', 'mmcv', 'mmseg', 'mmpretrain', 'mmdet', _OURS)


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


def type_name(settings: dict | str | type | None) -> str:
    """Name of the class that a ``type`` means, however it is written; all comparisons of types go through here.

    Args:
        settings: A dict with the key ``type``, or a ``type`` itself: a name with or without the scope of a library, the
            dotted path of a class, as :func:`name_types` and dumped configs have it, or a class or function.

    Returns:
        Only the name where the class is of an OpenMMLab library, torch or this package; the whole dotted path where it
        is somebody else's, who may have a class of the same name; '' where there is no ``type``.
    """
    kind = settings.get('type') if isinstance(settings, dict) else settings
    kind = kind if isinstance(kind, str) else _dotted(kind)
    path, _, name = kind.rpartition('.')
    return name if path.split('.')[0] in _KNOWN else kind


def name_types(node) -> None:
    """Write every ``type`` of a config that is a class or a function, as pure-Python configs have them, as its path.

    Registries build from a dotted path as from the class; so configs of both kinds are one to whoever reads them, and
    can be dumped.

    Args:
        node: A config, or a part of it; it is changed.
    """
    if isinstance(node, (list, tuple)):
        for each in node:
            name_types(each)
    elif isinstance(node, dict):
        for key in list(node):
            if key == 'type' and not isinstance(node[key], str) and callable(node[key]):
                node[key] = _dotted(node[key])
            else:
                name_types(node[key])


def _dotted(kind) -> str:
    name = getattr(kind, '__qualname__', None)
    return '' if name is None else f'{kind.__module__}.{name}'
