"""The study of the two gradients: that it runs, and that its numbers are what they are called."""
import json
import sys

import pytest
import torch
from tiny import ROOT

sys.path.insert(0, str(ROOT / 'tools/analysis'))
study = pytest.importorskip('dual_head_conflict')


def test_it_ends_in_a_figure_and_a_table(tmp_path):
    study.main(['--tasks', 'cls', '--seeds', '0', '1', '--weights', '1', '0.1', '--cls-iterations', '6', '--every', '2',
                '--out', str(tmp_path)])
    result = json.loads((tmp_path / 'conflict.json').read_text())
    ways = [way.words for way in study.variants([1., 0.1])]
    assert len(ways) == 6 and [run['variant'] for run in result['runs']] == 2 * ways
    for run in result['runs']:
        assert run['iteration'] == [0, 2, 4] and len(run['below']) == 3
        assert len(run['classifier']) == (0 if 'two heads' in run['variant'] else 3)
        assert all(-1 <= value <= 1 for value in run['classifier'] + run['below']) and 0 <= run['score'] <= 100
    table = (tmp_path / 'conflict.md').read_text().splitlines()
    assert len(table) == 2 + 1 + 6 and all(line.count('|') == 7 for line in table)
    assert (tmp_path / 'conflict.png').stat().st_size > 10_000


def test_weights_reach_the_training():
    """Before the first step all runs of a seed are alike; both losses with weight zero are cross-entropy alone."""
    args = study.parse_args(['--cls-iterations', '6', '--every', '1'])
    task = study.Classification(args)
    torch.manual_seed(0)
    teacher = task.network(True).eval()
    ce, logit, one, _ = study.variants([1.])
    runs = [study.train_student(task, teacher, way, 0, args) for way in (ce, logit, one, one._replace(weight=0.))]
    assert len({run['below'][0] for run in runs}) == 1
    assert runs[0]['below'] == runs[3]['below'] and runs[0]['below'] != runs[1]['below'] != runs[2]['below']


def test_cosine():
    one, other = [torch.tensor([1., 0.]), torch.tensor([[1.]])], [torch.tensor([-1., 0.]), torch.tensor([[0.]])]
    assert study.cosine(one, other) == pytest.approx(-2**-0.5)
