"""Every example in the docstrings and on the page about the losses runs and prints what it says."""
import doctest
import importlib
import pkgutil
import sys
from pathlib import Path

import pytest
from loss_cases import FAMILY

from mmseg_kd import functional, losses

ROOMS = [f'{room.__name__}.{module.name}' for room in (functional, losses)
         for module in pkgutil.iter_modules(room.__path__)]
PAGE = Path(__file__).resolve().parents[2] / 'docs/losses.md'


@pytest.mark.parametrize('name', ROOMS)
def test_docstrings(name):
    importlib.import_module(name)
    result = doctest.testmod(sys.modules[name])
    assert result.failed == 0
    stem = name.rpartition('.')[2]
    if any(stem in (case.function.__name__.removesuffix('_loss'), ) for case in FAMILY):
        assert result.attempted >= 2  # a loss without an example


@pytest.mark.parametrize('case', FAMILY, ids=lambda case: case.name)
def test_docstrings_follow_the_style(case):
    """Sentence, formula, symbols, reference, args, raises, example, in this order; every setting described."""
    text = case.function.__doc__
    order = [text.index(part) for part in ('.. math::', 'Reference:', 'Args:', 'Raises:', 'Example:')]
    assert order == sorted(order)
    for name in case.module().settings:
        assert f'        {name}: ' in text, name


def test_the_page():
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.failed == 0 and result.attempted > 15
    text = PAGE.read_text()
    for name in set(losses.__all__) - {'DistillationLoss'}:
        assert name in text
