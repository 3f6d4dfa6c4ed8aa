"""The smallest member of every config family that mmseg ships, as student and as teacher.

By default some light families of every kind; ``MMSEG_KD_EVERY_FAMILY=1`` walks over all (some minutes) and holds the
page docs/segmentors.md against what happened.
"""
import importlib.util
import os

import pytest
from tiny import ROOT

_spec = importlib.util.spec_from_file_location('walk_segmentors', ROOT / 'tools/analysis/walk_segmentors.py')
walk_segmentors = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(walk_segmentors)

EVERY = os.environ.get('MMSEG_KD_EVERY_FAMILY') == '1'
# CNNs with one head and with several, heads of several outputs, a cascade, transformers, an encoder-decoder.
LIGHT = ('bisenetv2', 'cgnet', 'ddrnet', 'erfnet', 'fastscnn', 'ocrnet', 'pidnet', 'segformer', 'segmenter', 'stdc')
PAGE = ROOT / 'docs/segmentors.md'


def test_no_family_is_forgotten():
    assert set(walk_segmentors.SMALLEST) == set(walk_segmentors.families()) == set(walk_segmentors.read_page(PAGE))


@pytest.mark.parametrize('family', walk_segmentors.families() if EVERY else LIGHT)
def test_one_distilled_step(family):
    assert walk_segmentors.walk(family) == walk_segmentors.read_page(PAGE)[family]


def test_a_step_that_fails_is_told():
    """A teacher of other classes, as if a family had one."""
    model = walk_segmentors.network('segformer/' + walk_segmentors.smallest('segformer').partition('/')[2], 64)
    other = walk_segmentors.tiny(7, model['data_preprocessor'])
    assert 'the student has 7, the teacher 19' in walk_segmentors.attempt(
        walk_segmentors.step, other, model, 7, 64)
