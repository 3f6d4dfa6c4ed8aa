"""Several processes that each hold a part of the batch train as one that holds all of it."""
import pytest
import torch
from many_processes import CASES, PROCESSES
from tiny import ROOT, command


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('many_processes')
    # A process that waits for another for ever would hang the tests; this is 20 times what they take.
    command('tests/test_distillers/many_processes.py', folder, timeout=300,
            PYTHONPATH=f'{ROOT}:{ROOT}/tests', OMP_NUM_THREADS='1')
    return folder


@pytest.mark.parametrize('processes', PROCESSES)
@pytest.mark.parametrize('name', CASES)
def test_weights_are_those_of_the_joined_batch(trained, name, processes):
    """The parts hold different numbers of labelled pixels, and with four processes one holds none."""
    alone, _ = torch.load(trained / f'{name}_1.pth')
    for rank in range(processes):
        weights, _ = torch.load(trained / f'{name}_{processes}_{rank}.pth')
        assert weights.keys() == alone.keys()
        for key, value in alone.items():
            assert (weights[key] - value).abs().max() < 1e-5, key


# These two of DGKD's diagnostics are no means over positions; each process measures its own part of the batch.
OF_A_PART = {'distill.logit_covariance_term', 'distill.coupling_to_dkd_term'}


@pytest.mark.parametrize('processes', PROCESSES)
@pytest.mark.parametrize('name', CASES)
def test_statistics_are_those_of_the_joined_batch(trained, name, processes):
    _, alone = torch.load(trained / f'{name}_1.pth')
    assert any('supervised_cosine' in each for each in alone) and any('agreement' in each for each in alone)
    for rank in range(processes):
        _, found = torch.load(trained / f'{name}_{processes}_{rank}.pth')
        assert found.keys() == alone.keys()
        for key in set(alone) - OF_A_PART:
            # A class that two logits decide by rounding may be another.
            assert found[key] == pytest.approx(alone[key], rel=1e-3, abs=2e-3), key
