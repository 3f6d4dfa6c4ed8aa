"""Several starts in one work dir: which of them is the run."""
import json
import re

import pytest
import tiny

from mmseg_kd.evaluation.class_table import read_class_scores
from mmseg_kd.evaluation.runs import read_run


def start(work_dir, name, steps, scores, **settings):
    """What a start at the time ``name`` leaves: a record every 10 steps, validations, a log with a table."""
    folder = work_dir / name / 'vis_data'
    folder.mkdir(parents=True)
    tiny.Config(dict(model=dict(type='EncoderDecoder'), name=name, **settings)).dump(folder / 'config.py')
    records = [dict(loss=float(step), time=.1, step=step) for step in steps]
    records += [dict(mIoU=score, step=step) for step, score in scores.items()]
    (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, records)))
    if scores:
        score = list(scores.values())[-1]
        (folder.parent / f'{name}.log').write_text(f'per class results:\n| Class | IoU |\n| road | {score} |\n')
    checkpoint = f'iter_{max(steps)}.pth' if steps else 'iter_0.pth'
    (work_dir / 'last_checkpoint').write_text(checkpoint)


def test_a_shorter_second_run_is_the_one_that_is_reported(tmp_path):
    start(tmp_path, '20260101_000000', range(10, 101, 10), {50: 40., 100: 60.}, resume=False)
    start(tmp_path, '20260102_000000', range(10, 41, 10), {20: 11., 40: 22.}, resume=False)
    run = read_run(tmp_path)
    assert run.scores['mIoU'] == 22. and run.iterations == 40 and run.config.name == '20260102_000000'
    assert [record['step'] for record in run.steps] == [10, 20, 30, 40]
    assert [record['mIoU'] for record in run.validations] == [11., 22.]
    assert read_class_scores(tmp_path) == dict(road=22.)


@pytest.mark.parametrize('settings', [dict(resume=True), {}])
def test_a_run_that_was_continued_is_one(tmp_path, settings):
    """Before it a run that is not part of it; what the second start did again counts as it did it last."""
    start(tmp_path, '20250101_000000', range(10, 301, 10), {300: 90.}, resume=False)
    start(tmp_path, '20260101_000000', range(10, 81, 10), {25: 1., 50: 2., 75: 3.}, resume=False)
    start(tmp_path, '20260102_000000', range(60, 101, 10), {75: 4., 100: 5.}, **settings)
    run = read_run(tmp_path)
    assert [record['step'] for record in run.steps] == list(range(10, 101, 10))
    assert [record['mIoU'] for record in run.validations] == [1., 2., 4., 5.]
    assert run.iterations == 100 and run.scores['mIoU'] == 5.


def test_a_branch_that_was_left_does_not_count(tmp_path):
    start(tmp_path, '20260101_000000', range(10, 101, 10), {50: 2., 100: 99.}, resume=False)
    start(tmp_path, '20260102_000000', range(60, 81, 10), {80: 5.}, resume=True)
    run = read_run(tmp_path)
    assert run.iterations == 80 and run.scores['mIoU'] == 5.


def test_a_start_that_logged_nothing_is_no_run(tmp_path):
    start(tmp_path, '20260101_000000', [10, 20], {20: 2.}, resume=False)
    start(tmp_path, '20260102_000000', [], {}, resume=False)
    (tmp_path / 'last_checkpoint').write_text('iter_20.pth')
    assert read_run(tmp_path).config.name == '20260101_000000'


def test_the_checkpoint_of_an_older_run_is_not_the_new_ones(tmp_path):
    start(tmp_path, '20260101_000000', range(10, 101, 10), {100: 60.}, resume=False)
    start(tmp_path, '20260102_000000', [10, 20], {20: 11.}, resume=False)
    (tmp_path / 'last_checkpoint').write_text('iter_100.pth')
    with pytest.raises(ValueError, match=re.escape('trained for 20 iterations, but the latest checkpoint is iter_100')):
        read_run(tmp_path)


def test_a_config_that_is_a_program_is_run_only_where_it_is_trusted(tmp_path):
    start(tmp_path, '20260101_000000', [10], {10: 40.})
    path = tmp_path / '20260101_000000/vis_data/config.py'
    path.write_text(path.read_text() + f'\nopen({str(tmp_path / "ran")!r}, "w").close()\n')
    with pytest.raises(ValueError, match='--trust-configs'):
        read_run(tmp_path)
    assert not (tmp_path / 'ran').exists()
    assert read_run(tmp_path, trusted=True).scores == dict(mIoU=40.) and (tmp_path / 'ran').exists()
