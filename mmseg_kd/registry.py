"""Registries of mmseg_kd, children of mmengine's: ``type='mmseg_kd.<Name>'`` is found from any scope."""
from importlib import import_module
from types import ModuleType

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import STRATEGIES as MMENGINE_STRATEGIES
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

__all__ = ['DATASETS', 'DATA_SAMPLERS', 'HOOKS', 'MODELS', 'OPTIM_WRAPPERS', 'STRATEGIES', 'TRANSFORMS',
           'class_named', 'import_with_extra']

_SCOPE = 'mmseg_kd'
# Where classes with a public name are, those first whose import costs least.
_ROOMS = ('losses', 'distillers', 'models', 'datasets', 'datasets.teacher_logits', 'engine', 'distillers.segmentation')


def import_with_extra(module: str, extra: str, who: str) -> ModuleType:
    """Import a module that an extra of setup.cfg brings, or that needs one.

    Raises:
        ImportError: it does not import; the message says who needs it and how it is installed.
    """
    try:
        return import_module(module)
    # A torchvision that was built for another torch raises a RuntimeError.
    except (ImportError, RuntimeError) as error:
        # No wheel of mmcv on PyPI has its compiled operators, which mmdet cannot do without.
        ops = ' and mmcv with compiled operators: bash tools/mmcv_with_ops.sh' if extra == 'det' else ''
        raise ImportError(f'{who} needs the extra "{extra}", which does not import ({error}). '
                          f"Install it with: pip install 'mmseg_kd[{extra}]'{ops}") from error


class ExtrasRegistry(Registry):
    """A registry of which some names need an optional package; their modules are imported when they are named.

    Args:
        extras: Name to (module that registers it, extra of setup.cfg that it needs).
        *args: Arguments of mmengine's ``Registry``, as for ``**kwargs``.

    Raises:
        ImportError: a name's extra is not installed, or does not import.
    """

    def __init__(self, *args, extras: dict[str, tuple[str, str]], **kwargs):
        super().__init__(*args, **kwargs)
        self.extras = extras

    def get(self, key: str):
        """mmengine's ``get``, after the import of what registers ``key``."""
        name = key.rpartition('.')[2]
        if name in self.extras and name not in self._module_dict:
            module, extra = self.extras[name]
            import_with_extra(module, extra, f'{_SCOPE}.{name}')
        return super().get(key)


MODELS = ExtrasRegistry(
    'model', parent=MMENGINE_MODELS, scope=_SCOPE,
    locations=['mmseg_kd.losses', 'mmseg_kd.models', 'mmseg_kd.distillers.segmentation'],
    extras=dict(DistilledImageClassifier=('mmseg_kd.distillers.classification.classifier', 'cls'),
                DistilledSingleStageDetector=('mmseg_kd.distillers.detection.single_stage', 'det'),
                DistilledTwoStageDetector=('mmseg_kd.distillers.detection.two_stage', 'det')))
DATASETS = ExtrasRegistry(
    'dataset', parent=MMENGINE_DATASETS, scope=_SCOPE, locations=['mmseg_kd.datasets'],
    extras=dict(Digits=('mmseg_kd.datasets.digits', 'cls'), TinyImageNet=('mmseg_kd.datasets.tiny_imagenet', 'cls')))
DATA_SAMPLERS = Registry(
    'data sampler', parent=MMENGINE_DATA_SAMPLERS, scope=_SCOPE, locations=['mmseg_kd.datasets'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope=_SCOPE, locations=['mmseg_kd.engine'])
OPTIM_WRAPPERS = Registry(
    'optimizer wrapper', parent=MMENGINE_OPTIM_WRAPPERS, scope=_SCOPE, locations=['mmseg_kd.engine'])
TRANSFORMS = Registry(
    'transform', parent=MMENGINE_TRANSFORMS, scope=_SCOPE,
    locations=['mmseg_kd.datasets', 'mmseg_kd.datasets.teacher_logits'])
STRATEGIES = Registry('strategy', parent=MMENGINE_STRATEGIES, scope=_SCOPE, locations=['mmseg_kd.engine'])


def class_named(name: str) -> type | None:
    """The class of mmseg_kd that a config names ``mmseg_kd.<name>``; None: there is none.

    Raises:
        ImportError: it needs an extra that is not installed.
    """
    for room in _ROOMS:
        module = import_module(f'{_SCOPE}.{room}')
        if name in module.__all__:
            return getattr(module, name)
    return next((registry.get(name) for registry in (MODELS, DATASETS) if name in registry.extras), None)
