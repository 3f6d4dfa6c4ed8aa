"""Configs of teachers, and the plain student inside a distilled model's config."""
import copy
import os.path as osp
import re

from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.utils import is_installed

from .config_names import name_types, type_name

__all__ = ['DISTILLATION_KEYS', 'plain_settings', 'read_config', 'student_config']

#: What a distilled model adds to its student's arguments.
DISTILLATION_KEYS = ('teacher', 'distill', 'dual_head', 'upsample_in_loss')


def read_config(config: str | dict | Config, setting: str = 'teacher.config') -> Config:
    """Read an OpenMMLab config from wherever it is named.

    Args:
        config: A path, ``'mmseg::pspnet/pspnet_r18-....py'``, a dict with the key ``model``, or a Config.
        setting: Name of the setting that ``config`` came from, for the error messages.

    Returns:
        A Config of its own (changing it does not change what was passed).

    Raises:
        ValueError: no such file, no such package, or no ``model`` in it.
    """
    if isinstance(config, str):
        config = _read_named(config, setting)
    elif isinstance(config, (dict, Config)):
        config = Config(copy.deepcopy(dict(config)))
    else:
        raise ValueError(f'`{setting}`: expected a path, a "package::name", a dict or a Config, got '
                         f'{type(config).__name__}.')
    name_types(config._cfg_dict)
    data = config.get('data')
    if isinstance(data, dict) and not {'train', 'val', 'test'}.isdisjoint(data) and 'train_dataloader' not in config:
        raise ValueError(f'`{setting}`: this is a config of mmsegmentation 0.x (or of another library of that time): '
                         'it has `data`, where 1.x has `train_dataloader`. The configs of 1.x have the same names: '
                         "'mmseg::<folder>/<name>.py'. How to write one anew: "
                         'https://mmsegmentation.readthedocs.io/en/latest/migration/')
    if not isinstance(config.get('model'), dict):
        raise ValueError(f'`{setting}`: expected a config with the key `model`, got the keys {sorted(config.keys())}.')
    return config


def _read_named(name: str, setting: str) -> Config:
    if '::' not in name:
        if not osp.isfile(osp.expanduser(name)):
            raise ValueError(f'`{setting}`: expected an existing config file, got {name!r} (looked in '
                             f'{osp.abspath(name)}). Configs that ship with mmseg are named '
                             '"mmseg::<folder>/<name>.py".')
        return _from_file(osp.expanduser(name), setting)
    package = name.split('::')[0]
    # mmengine.hub pip-installs what it does not find; refuse before it can.
    if not is_installed(package):
        raise ValueError(f'`{setting}`: {name!r} names the package {package!r}, which is not installed.')
    try:
        return get_config(name)
    except (FileNotFoundError, AssertionError, ValueError) as error:
        raise ValueError(f'`{setting}`: {package} ships no config {name!r}: {error}') from error


def _from_file(path: str, setting: str) -> Config:
    try:
        return Config.fromfile(path)
    except KeyError as error:
        found = re.search(r'Duplicate key.*\{(.*)\}', str(error))
        if not found:
            raise
        keys = ', '.join(sorted(re.findall(r'\w+', found[1])))
        raise ValueError(
            f'`{setting}`: {path}: two of its bases set the same keys: {keys}. Give them other names in your own base, '
            'and put them in place in this file by NAME = dict(_delete_=True, **_base_.OTHER_NAME): docs/own_data.md, '
            '"A teacher on an mmseg:: config".') from error


def student_config(model: dict) -> dict:
    """Config of the plain student inside the config of a distilled model.

    Args:
        model: The ``model`` of a config, distilled or plain.

    Returns:
        A copy in which ``mmseg_kd.Distilled<X>`` became ``<X>`` and the distillation settings are gone; a plain model's
        config comes back as it was.
    """
    model = copy.deepcopy(model)
    name_types(model)
    name = type_name(model)
    if not name.startswith('Distilled') or '.' in name:
        return model
    model['type'] = name[len('Distilled'):]
    for key in DISTILLATION_KEYS:
        model.pop(key, None)
    return model


def plain_settings(config: dict | Config, scope: str) -> dict:
    """The plain model of a training config, ready for ``MODELS.build`` and for weights of its own.

    Args:
        config: A training config, distilled or plain.
        scope: Registry scope of its types unless the config names its own ``default_scope``.
    """
    model = student_config(config['model'])
    # All weights come from the checkpoint; a backbone's ImageNet weights are not worth their download.
    if model.get('pretrained') is not None:
        model['pretrained'] = None
    # A Runner takes a data preprocessor from beside the model as well; so configs of mmpretrain are written.
    if config.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', config['data_preprocessor'])
    model.setdefault('_scope_', config.get('default_scope') or scope)
    return model
