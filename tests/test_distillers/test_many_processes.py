"""Several processes that each hold a part of the batch train as one that holds all of it."""
import pytest
import torch
from many_processes import CASES, PROCESSES
from tiny import ROOT, command


@pytest.fixture(scope='module')
def trained(mini_cityscapes, tmp_path_factory):
    folder = tmp_path_factory.mktemp('many_processes')
    # A process that waits for another for ever would hang the tests; this is 20 times what they take.
    command('tests/test_distillers/many_processes.py', folder, mini_cityscapes, timeout=600,
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


# These of DGKD's diagnostics are not means over positions; each process measures its own part of the batch.
OF_A_PART = {f'distill.{name}_term' for name in ('logit_covariance', 'batch_covariance', 'coupling_to_dkd')}


@pytest.mark.parametrize('processes', PROCESSES)
# A loss of features alone has no parts and does not reach the classifier: there is nothing to tell.
@pytest.mark.parametrize('name', [name for name in CASES if not name.startswith(('fsdp', 'review'))])
def test_statistics_are_those_of_the_joined_batch(trained, name, processes):
    _, alone = torch.load(trained / f'{name}_1.pth')
    assert any('supervised_cosine' in each for each in alone) and any('agreement' in each for each in alone)
    for rank in range(processes):
        _, found = torch.load(trained / f'{name}_{processes}_{rank}.pth')
        assert found.keys() == alone.keys()
        for key in set(alone) - OF_A_PART:
            # A class that two logits decide by rounding may be another.
            assert found[key] == pytest.approx(alone[key], rel=1e-3, abs=2e-3), key


@pytest.mark.parametrize('processes', PROCESSES)
def test_validation_gives_the_score_of_one_process(trained, processes):
    """Three pictures, which neither two nor four processes can share evenly."""
    alone = torch.load(trained / 'score_1.pth', weights_only=False)
    assert set(alone) == {'aAcc', 'mIoU', 'mAcc'}
    for rank in range(processes):
        assert torch.load(trained / f'score_{processes}_{rank}.pth', weights_only=False) == alone


def test_fsdp_resumes(trained):
    """FlexibleRunner with FSDPStrategy; a dual head, which is in no state dict.

    A checkpoint in one file (state_dict_cfg='full') cannot be tested here: torch itself crashes at it on CPUs.
    """
    for rank in range(2):
        straight, resumed = (torch.load(trained / f'{name}_{rank}.pth') for name in ('straight', 'resumed'))
        assert any(name.startswith('distill.dual_head') for name in straight)
        assert straight.keys() == resumed.keys()
        assert all(torch.equal(value, resumed[name]) for name, value in straight.items())
        last = torch.load(trained / f'last_{rank}.pth')
        assert last['iter'] == 4 and last['names'] and not any('distill' in name for name in last['names'])
        assert last['others'] == ['dual_head.weight', 'dual_head.bias']


def test_a_drawn_seed_of_each_process_resumes(trained):
    """`randomness=dict(seed=None, diff_rank_seed=True)`, bit for bit."""
    seen = [torch.load(trained / f'drawn_{rank}.pth') for rank in range(2)]
    seed = seen[0]['seeds'][0]
    assert [each['seeds'] for each in seen] == [[seed] * 2, [seed + 1] * 2]
    for rank, each in enumerate(seen):
        straight, resumed = each['ends']
        assert each['iterations'] == [4, 4] and straight.keys() == resumed.keys()
        # A checkpoint has the batch statistics of the first process; those of the others are lost, as with mmengine.
        assert all(torch.equal(value, resumed[name]) for name, value in straight.items()
                   if rank == 0 or 'running' not in name)


def test_a_shared_teacher_is_checked_where_processes_cannot_share_pictures_evenly(trained):
    """Three pictures on two processes, whose widths give a sliding window one, two and three places."""
    expected = torch.load(trained / 'score_of_teacher.pth', weights_only=False)['mIoU']
    for rank in range(2):
        seen = torch.load(trained / f'shared_{rank}.pth')
        assert seen['shared'] and round(seen['miou'], 2) == expected


def test_the_origin_of_a_nan_that_one_process_sees_is_told_beside_a_shared_teacher(trained):
    """The first such step is left out on both, the second ends both."""
    messages = [torch.load(trained / f'shared_{rank}.pth') for rank in range(2)]
    assert [seen['iterations'] for seen in messages] == [2, 2]
    assert messages[0]['refusal'].startswith('Iteration 3: the loss of another process is not finite')
    assert messages[1]['refusal'].startswith('Iteration 3: decode.loss_ce = nan')
    assert 'First seen in the images. Batch: ' in messages[1]['refusal']
    assert all('1 such steps were left out before' in seen['refusal'] for seen in messages)
