"""tools/analysis/compare.py on work dirs as a Runner leaves them."""
import json
import re
import statistics

import cv2
import pytest
import tiny
import torch
from mmengine.config import Config
from tiny import build, command, distilled, segmentor

SCORES = dict(base=(40., 43., 41.), kd=(42., 42., 45.))


def write_run(folder, model, score, seed, iterations=10):
    """A run whose memory peaked in the middle of the log."""
    records = [dict(loss=1., time=0.1 * step, step=step, memory=500 + 12 * seed * (step == 2)) for step in (1, 2, 9)]
    records += [dict(loss=1., time=0.2, step=iterations, memory=500)]
    records += [dict(mIoU=score - 5, step=4), dict(mIoU=score, step=iterations)]
    settings = dict(model=model, default_scope='mmseg', randomness=dict(seed=seed))
    tiny.write_run(folder, Config(settings), records)


def multiply_adds(height, width):
    """Of the convolutions of `segmentor()`, by the textbook formula from the shapes that a forward pass has."""
    model, total = build(segmentor()).eval(), 0

    def count(module, args, output):
        nonlocal total
        kernel = module.kernel_size[0] * module.kernel_size[1]
        total += output[0].numel() * module.in_channels // module.groups * kernel
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    model(torch.zeros(1, 3, height, width), mode='tensor')
    return total


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp('runs')
    for name, scores in SCORES.items():
        model = segmentor() if name == 'base' else distilled(segmentor(), segmentor(16))
        for seed, score in enumerate(scores):
            write_run(root / f'{name}{seed}', model, score, seed)
    return root


def row(runs, name):
    return f'{name}=' + ','.join(str(runs / f'{name}{seed}') for seed in range(3))


def test_table_and_json(runs, tmp_path):
    output = command('tools/analysis/compare.py', row(runs, 'base'), row(runs, 'kd'), '--baseline', 'base', '--out',
                     tmp_path / 'table').stdout
    rows = {each['name']: each for each in json.loads((tmp_path / 'table.json').read_text())}
    parameters = sum(parameter.numel() for parameter in build(segmentor()).parameters())
    for name, scores in SCORES.items():
        assert rows[name]['parameters'] == parameters  # the student's, not the teacher's
        assert rows[name]['mean'] == pytest.approx(statistics.mean(scores))
        assert rows[name]['deviation'] == pytest.approx(statistics.stdev(scores))
        assert rows[name]['step_time'] == pytest.approx(0.2)
        assert rows[name]['peak_memory_mib'] == 524
        assert rows[name]['size'] == [32, 64] and rows[name]['flops'] == multiply_adds(32, 64)
    assert rows['kd']['gains'] == pytest.approx([2., -1., 4.])
    assert '| 43.00 ± 1.73 | +1.67 | 42.00, 42.00, 45.00 | 0.200 | 0.51 GiB |' in output
    assert (tmp_path / 'table.md').read_text().strip() in output
    assert cv2.imread(str(tmp_path / 'table.png')).shape[1] == 900


@pytest.mark.parametrize('arguments, message', [
    (['nothing'], r'which has no `last_checkpoint`'),
    (['a='], r'`runs`: expected \[NAME=\]WORK_DIR'),
    (['a=/nowhere'], r'which has no `last_checkpoint`'),
    (['{base}', '--baseline', 'other'], r"`--baseline`: expected one of \['base'\]"),
    (['{base}', '--metric', 'mDice'], r"`--metric`: 'mDice' is not among \['mIoU'\]"),
])
def test_refusals(runs, arguments, message):
    arguments = [each.format(base=row(runs, 'base')) for each in arguments]
    process = command('tools/analysis/compare.py', *arguments, check=False)
    assert process.returncode and re.search(message, process.stdout), process.stdout[-500:]


def test_runs_of_different_length_have_no_mean(runs, tmp_path):
    write_run(tmp_path / 'long', segmentor(), 50., 3, iterations=20)
    process = command('tools/analysis/compare.py', f"{row(runs, 'base')},{tmp_path / 'long'}", check=False)
    assert process.returncode and 'its runs trained for [10, 20] iterations' in process.stdout


TABLE = """11/21 10:00:00 - mmengine - INFO - per class results:
11/21 10:00:00 - mmengine - INFO - \n+-------+-------+-------+
| Class |  IoU  |  Acc  |
+-------+-------+-------+
|  road | {:5.2f} | 90.00 |
|  bus  |  nan  |  nan  |
|  tree | {:5.2f} |  1.00 |
+-------+-------+-------+
11/21 10:00:00 - mmengine - INFO - Iter(val) [4/4]    aAcc: 28.0600  mIoU: 3.2200  mAcc: 8.1400
"""


def test_classes(runs, tmp_path):
    """The last table of the latest log of each run counts; classes that do not occur are left out."""
    for name, road in dict(base=(10., 20., 60.), kd=(40., 40., 41.)).items():
        for seed, score in enumerate(road):
            log = runs / f'{name}{seed}/20260101_000001/a.log'
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(TABLE.format(1., 2.) + TABLE.format(score, 7.5))
            old = runs / f'{name}{seed}/20250101_000001/a.log'
            old.parent.mkdir(parents=True, exist_ok=True)
            old.write_text(TABLE.format(99., 99.))
    output = command('tools/analysis/compare.py', row(runs, 'base'), row(runs, 'kd'), '--classes', '--out',
                     tmp_path / 'table').stdout
    assert '| IoU | base | kd |' in output and '| road | 30.0 | 40.3 |' in output and '| tree | 7.5 | 7.5 |' in output
    assert 'bus' not in output
    written = json.loads((tmp_path / 'table.json').read_text())
    assert written[0]['class_scores'] == dict(road=30., tree=7.5)


def test_runs_that_cannot_be_paired_by_seed(tmp_path):
    """Runs without a seed in their config, as on an `mmseg::` base; as many seeds that say nothing; fewer runs."""
    for name, scores, seeds in (
            ('a', (51., 53., 61.), (None, ) * 3), ('b', (50., 52., 60.), (None, ) * 3),
            ('c', (50., 52., 60.), (4, 4, 5)), ('d', (70., 80.), (1, 2)), ('e', (60., 61.), (2, 3))):
        for index, (score, seed) in enumerate(zip(scores, seeds, strict=True)):
            write_run(tmp_path / f'{name}{index}', segmentor(), score, seed or 0)
            if seed is None:
                config, = (tmp_path / f'{name}{index}').glob('*/vis_data/config.py')
                config.write_text(config.read_text().replace('randomness = dict(seed=0)', ''))

    def gains(*names):
        rows = [f'{name}=' + ','.join(map(str, sorted(tmp_path.glob(f'{name}?')))) for name in names]
        output = command('tools/analysis/compare.py', *rows, '--baseline', names[0], '--out', tmp_path / 'out').stdout
        return [row['gain'] for row in json.loads((tmp_path / 'out.json').read_text())], output

    found, output = gains('b', 'a', 'c', 'd')
    assert found == pytest.approx([0., 1., 0., 21.])
    assert 'a: the gain is the difference of the means, because the runs cannot be paired by seed' in output
    assert 'c: the gain is the difference' in output and 'd has 2 runs, b has 3 runs.' in output
    found, output = gains('d', 'e')
    assert found == pytest.approx([0., -20.])  # of seed 2 alone
    assert 'e: the gain is over the seeds [2], which both have' in output and 'difference' not in output


def test_the_order_of_rows_changes_no_class(tmp_path):
    """A class that one run alone has, and one that none has."""
    for name, bus in (('one', 'nan'), ('two', '33.00')):
        write_run(tmp_path / name, segmentor(), 50., 0)
        log, = tmp_path.glob(f'{name}/*/vis_data')
        (log.parent / 'a.log').write_text(TABLE.format(10., 20.).replace('  nan  |  nan', f' {bus} |  nan') + '\n')
    tables = []
    for order in (('one', 'two'), ('two', 'one')):
        rows = [f'{name}={tmp_path / name}' for name in order]
        output = command('tools/analysis/compare.py', *rows, '--classes').stdout
        tables.append([[cell.strip() for cell in line.strip('|').split('|')] for line in output.splitlines()
                       if line.startswith(('| road', '| bus', '| tree', '| IoU'))])
    assert tables[0] == [['IoU', 'one', 'two'], ['road', '10.0', '10.0'], ['bus', '', '33.0'], ['tree', '20.0', '20.0']]
    assert tables[1] == [[row[0], row[2], row[1]] for row in tables[0]]


def test_classes_of_a_run_without_a_table(tmp_path):
    from mmseg_kd.evaluation.class_table import read_class_scores
    with pytest.raises(ValueError, match='no log in .* has a table of classes'):
        read_class_scores(tmp_path)
