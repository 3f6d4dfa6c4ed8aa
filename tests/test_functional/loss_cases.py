"""The family as a list, for tests that hold for all: a function, its module, settings, and the oracle of its paper."""
from typing import Any, Callable, Dict, NamedTuple, Optional

import oracles
import pytest
import torch

from mmseg_kd import functional, losses

NUM_CLASSES = 7


class Case(NamedTuple):
    name: str
    function: Callable
    module: type
    settings: Dict[str, Any]
    oracle: Optional[Callable]

    @property
    def needs_target(self):
        return self.build().needs_target

    def call(self, student, teacher, target=None, weight=None, **settings):
        """The function, with a fixed draw where there is chance."""
        torch.manual_seed(0)
        return self.function(student, teacher, target, weight, **{**self.settings, **settings})

    def build(self, **settings):
        return self.module(**{**self.settings, **settings})


def _case(name, module, oracle=None, **settings):
    label = '-'.join([name, *(f'{key}={value}'.replace(' ', '') for key, value in settings.items())])
    return Case(label, getattr(functional, f'{name}_loss'), getattr(losses, module), settings, oracle)


def _with_oracle(name, module, **settings):
    return _case(name, module, getattr(oracles, name), **settings)


#: One case per loss.
FAMILY = [
    _with_oracle('kd', 'KDLoss'),
    _with_oracle('dkd', 'DKDLoss'),
    _with_oracle('gdkd', 'GDKDLoss', k=3),
    _with_oracle('gdkd3', 'GDKD3Loss'),
    _case('stochastic_gdkd', 'StochasticGDKDLoss'),
    _with_oracle('dgkd', 'DGKDLoss'),
    _with_oracle('binary_kl', 'BinaryKLLoss'),
    _with_oracle('binary_kl_norm', 'BinaryKLNormLoss'),
    _with_oracle('cwd', 'CWDLoss'),
    _with_oracle('dist', 'DISTLoss'),
    _with_oracle('logit_mse', 'LogitMSELoss'),
]

#: Every way to set them that changes a formula.
VARIANTS = FAMILY + [
    _with_oracle('kd', 'KDLoss', temperature=1.),
    _with_oracle('kd', 'KDLoss', temperature=2., standardize='whole'),
    _with_oracle('dkd', 'DKDLoss', alpha=0.5, beta=2., temperature=1.),
    _with_oracle('dkd', 'DKDLoss', standardize='whole'),
    _with_oracle('dkd', 'DKDLoss', standardize='group'),
    _with_oracle('dkd', 'DKDLoss', standardize='rest'),
    _with_oracle('gdkd', 'GDKDLoss'),
    _with_oracle('gdkd', 'GDKDLoss', k=1),
    _with_oracle('gdkd', 'GDKDLoss', k=NUM_CLASSES - 1),
    _with_oracle('gdkd', 'GDKDLoss', k=3, w0=0.5, w1=3., w2=5., temperature=1.),
    _with_oracle('gdkd', 'GDKDLoss', k=2, strategy='worst'),
    _with_oracle('gdkd', 'GDKDLoss', k=3, divergence='reverse'),
    _with_oracle('gdkd', 'GDKDLoss', k=3, divergence='both'),
    _with_oracle('gdkd', 'GDKDLoss', k=(1, 2, 3, 4, 5, 6, 1)),
    _with_oracle('gdkd', 'GDKDLoss', ratio=1.5, k_max=4),
    _with_oracle('gdkd', 'GDKDLoss', ratio=3.5, k_max=3, temperature=2.),
    _with_oracle('gdkd', 'GDKDLoss', k=3, standardize='whole'),
    _with_oracle('gdkd', 'GDKDLoss', k=3, standardize='group'),
    _with_oracle('gdkd', 'GDKDLoss', k=3, standardize='rest'),
    _with_oracle('gdkd', 'GDKDLoss', k=3, by_mass='top'),
    _with_oracle('gdkd', 'GDKDLoss', k=3, by_mass='rest', standardize='whole', divergence='reverse'),
    _with_oracle('gdkd', 'GDKDLoss', k=3, by_mass='both', w1=6., w2=14.),
    _with_oracle('gdkd3', 'GDKD3Loss', k=1),
    _with_oracle('gdkd3', 'GDKD3Loss', k=3, w0=0.5, w1=3., w2=5., divergence='both', temperature=1.),
    _with_oracle('gdkd3', 'GDKD3Loss', standardize='group'),
    _with_oracle('dgkd', 'DGKDLoss', alpha=0.5, beta=8., epsilon=2., temperature=2.),
    _with_oracle('dgkd', 'DGKDLoss', softening=0.01),
    _with_oracle('dgkd', 'DGKDLoss', coupling='absolute', temperature=2.),
    _with_oracle('binary_kl', 'BinaryKLLoss', temperature=1.),
    _with_oracle('binary_kl_norm', 'BinaryKLNormLoss', temperature=0.5),
    _with_oracle('cwd', 'CWDLoss', temperature=1.),
    _with_oracle('dist', 'DISTLoss', beta=2., gamma=0.5, temperature=4.),
]

each_loss = pytest.mark.parametrize('case', FAMILY, ids=lambda case: case.name)
each_variant = pytest.mark.parametrize('case', VARIANTS, ids=lambda case: case.name)


def logits(*shape, seed=0, scale=3., dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul(scale).to(dtype)


def labels(*shape, num_classes=NUM_CLASSES, ignored=(), seed=2):
    target = torch.randint(num_classes, shape, generator=torch.Generator().manual_seed(seed))
    target.view(-1)[list(ignored)] = 255
    return target


def maps(case, ignored=(), dtype=torch.float64, scale=3.):
    """Student, teacher and target for two images of 2 x 3 positions."""
    shape = (2, NUM_CLASSES, 2, 3)
    target = labels(2, 2, 3, ignored=ignored)
    return logits(*shape, seed=0, dtype=dtype, scale=scale), logits(*shape, seed=1, dtype=dtype, scale=scale), target


def value_and_gradient(case, student, teacher, target=None, weight=None, **settings):
    student = student.clone().requires_grad_()
    value = case.call(student, teacher, target, weight, **settings)
    gradient, = torch.autograd.grad(value, student)
    return value.detach(), gradient
