"""Registries of mmseg_kd, children of mmengine's: ``type='mmseg_kd.<Name>'`` is found from any scope."""
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import Registry

__all__ = ['HOOKS', 'MODELS', 'OPTIM_WRAPPERS']

_SCOPE = 'mmseg_kd'

MODELS = Registry(
    'model', parent=MMENGINE_MODELS, scope=_SCOPE,
    locations=['mmseg_kd.losses', 'mmseg_kd.heads', 'mmseg_kd.distillers'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope=_SCOPE, locations=['mmseg_kd.engine'])
OPTIM_WRAPPERS = Registry(
    'optimizer wrapper', parent=MMENGINE_OPTIM_WRAPPERS, scope=_SCOPE, locations=['mmseg_kd.engine'])
