"""The second classifier of a dual head (DHKD)."""
from torch import nn

from .random_stream import own_random_stream

__all__ = ['auxiliary_classifier']

_KINDS = ('linear', 'nonlinear')
_INITS = ('normal', 'torch')
_HIDDEN, _DROPOUT, _STD = 200, 0.1, 0.01


def _check(settings: dict) -> None:
    known = isinstance(settings, dict) and {'kind'} <= set(settings) <= {'kind', 'init'}
    if not known or settings['kind'] not in _KINDS or settings.get('init', 'normal') not in _INITS:
        raise ValueError(f"`dual_head`: expected dict(kind='linear') or dict(kind='nonlinear'), and perhaps "
                         f"init='normal' or 'torch' in it, got {settings!r}.")


def auxiliary_classifier(settings: dict, main: nn.Conv2d | nn.Linear) -> nn.Module:
    """Build a second classifier on the features of an existing one.

    The linear one is what the main classifier is: one layer of the same form. The nonlinear one maps to 200 features,
    dropout 0.1, BatchNorm, ReLU, and from there to the classes (Yang et al., "Dual-Head Knowledge Distillation": linear
    for ImageNet, nonlinear for CIFAR-100). The last layer starts with weights from Normal(0, 0.01) and zero bias, as
    the classifiers of OpenMMLab do, or as torch initialises a layer, which is what the published code does.

    Its weights follow from torch's seed and from nothing else: the order in which a model is built does not change
    them, and they change no random number that the model draws.

    Args:
        settings: ``dict(kind='linear'|'nonlinear')``, and perhaps ``init='normal'`` (the default) or ``'torch'``.
        main: The main classifier, a linear layer or a convolution; it is read, not changed.

    Returns:
        A module from the main classifier's input, (N, D) or (N, D, H, W), to logits of the main classifier's shape.

    Raises:
        ValueError: another kind, or an unknown setting.
    """
    _check(settings)
    with own_random_stream('dual_head'):
        if settings['kind'] == 'linear':
            classifier = _like(main)
        elif isinstance(main, nn.Conv2d):
            classifier = nn.Sequential(
                nn.Conv2d(main.in_channels, _HIDDEN, 1), nn.Dropout2d(_DROPOUT), nn.BatchNorm2d(_HIDDEN),
                nn.ReLU(inplace=True), _like(main, _HIDDEN))
        else:
            classifier = nn.Sequential(
                nn.Linear(main.in_features, _HIDDEN), nn.Dropout(_DROPOUT), nn.BatchNorm1d(_HIDDEN),
                nn.ReLU(inplace=True), _like(main, _HIDDEN))
        if settings.get('init', 'normal') == 'normal':
            last = classifier if settings['kind'] == 'linear' else classifier[-1]
            nn.init.normal_(last.weight, std=_STD)
            nn.init.zeros_(last.bias)
    return classifier


def _like(main: nn.Conv2d | nn.Linear, features: int | None = None) -> nn.Conv2d | nn.Linear:
    """A new layer of the form of ``main``, perhaps with another number of input features."""
    if isinstance(main, nn.Linear):
        return nn.Linear(features or main.in_features, main.out_features)
    form = dict(kernel_size=main.kernel_size, stride=main.stride, padding=main.padding, dilation=main.dilation)
    return nn.Conv2d(features or main.in_channels, main.out_channels, **form)
