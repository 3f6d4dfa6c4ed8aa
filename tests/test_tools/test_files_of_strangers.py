"""Whatever a tool reads, a checkpoint's or a work dir's code does not run.

Every script under tools/ must have an entry here, so that the next one cannot be forgotten.
"""
import ast
import configparser

import pytest
import torch
from server import Server
from tiny import ROOT, build, distilled, run_config, segmentor, write_run

from mmseg_kd.__main__ import COMMANDS, tool_names

REFUSED = 'holds more than weights'
#: Tool to its command lines, and what each answers. {checkpoint}, {run} and {stopped} have code.
READS = {
    'train': [
        (['{config}', '--work-dir', '{out}', '--cfg-options', 'load_from={checkpoint}'], REFUSED),
        (['{config}', '--work-dir', '{stopped}', '--resume'], REFUSED),
        # Weights without a fault, beside a config that mmengine runs when it resumes.
        (['{config}', '--work-dir', '{resumed}', '--resume'], None),
        (['{distilled}', '--work-dir', '{out}'], REFUSED),
        (['{config}', '--work-dir', '{out}', '--cfg-options', 'model.backbone.init_cfg.type=Pretrained',
          'model.backbone.init_cfg.checkpoint={checkpoint}'], REFUSED)],
    'distil': [(['--student', '{config}', '--teacher', '{config}', '--teacher-checkpoint', '{checkpoint}',
                 '--work-dir', '{out}'], REFUSED),
               (['--student', '{config}', '--teacher', '{program}', '--work-dir', '{out}_2'], 'It was not run')],
    'test': [(['{config}', '{checkpoint}', '--work-dir', '{out}'], REFUSED)],
    'cache_teacher': [(['{distilled}', '--out', '{out}', '--device', 'cpu'], REFUSED)],
    'pseudo_label': [(['{distilled}', '--out', '{out}', '--device', 'cpu'], REFUSED)],
    'export_student': [(['{config}', '{checkpoint}', '--out', '{out}'], REFUSED)],
    'analysis/compare': [(['a={program}'], 'It was not run')],
    'analysis/draw_predictions': [(['a={run}', '--out', '{out}.png'], REFUSED),
                                  (['a={program}', '--out', '{out}.png'], 'It was not run')],
    'analysis/measure_topk': [(['{config}', '{checkpoint}', '--out', '{out}.json'], REFUSED),
                              (['{program}', '--out', '{out}.json'], 'It was not run')],
    'analysis/neural_collapse': [(['{run}', '--out', '{out}'], REFUSED),
                                 (['{program}', '--out', '{out}'], 'It was not run')],
    'analysis/report': [(['{run}', '{plain}', '--out', '{out}'], REFUSED),
                        (['{program}', '--out', '{out}'], 'It was not run')],
    'benchmarks/distill_step': [(['{distilled}', '--rounds', '1', '--warmup', '1', '--size', '32', '64', '--forms',
                                  'distilled'], None)],
    'benchmarks/step_memory': [(['{distilled}', '--size', '32', '64', '--only', 'distilled'], None)],
}
#: Tools that take no file of somebody else but pictures, or none at all.
READS_NOTHING = {
    'analysis/dual_head_conflict', 'analysis/walk_segmentors', 'benchmarks/compile_kernels',
    'benchmarks/distill_statistics', 'benchmarks/first_experience', 'benchmarks/grad_align', 'benchmarks/operators',
    'benchmarks/processes', 'check_dataset', 'dataset_converters/mini_cityscapes', 'torchvision_beside_cpu_torch'}
#: Arguments by which a tool takes a checkpoint, a config or a work dir.
TAKES = {'config', 'checkpoint', 'runs', 'rows', 'run', 'work_dir', '--checkpoint', '--config', '--resume',
         '--load-from', '--teacher'}


def test_every_tool_has_an_entry():
    assert sorted({*READS, *READS_NOTHING}) == tool_names()
    for name in READS_NOTHING:
        calls = [node for node in ast.walk(ast.parse((ROOT / f'tools/{name}.py').read_text()))
                 if isinstance(node, ast.Call) and getattr(node.func, 'attr', '') == 'add_argument']
        assert not TAKES & {call.args[0].value for call in calls}, f'{name} takes files after all'


def test_there_is_no_other_entry_point():
    """The one console script runs the tools; another would need an entry above."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    scripts = setup['options.entry_points']
    assert list(scripts) == ['console_scripts'] and scripts['console_scripts'].split() == [
        'mmseg-kd', '=', 'mmseg_kd.__main__:main']
    assert {tool for tool, _ in COMMANDS.values() if tool} <= {*READS, *READS_NOTHING}


def test_nothing_else_unpickles():
    """Of the functions that can run what a file says, the package and its tools call those in the one door alone."""
    dangerous = {'torch.load', 'pickle.load', 'pickle.loads', 'joblib.load', 'dill.load', 'mmengine.load', 'load_url',
                 'torch.jit.load', 'init_model', 'get_model', 'load_checkpoint', 'load_state_dict_from_url'}
    # What the export has written just before; and a teacher that is a program, which its user names as one.
    known = {('mmseg_kd/export/student.py', 'init_model'), ('mmseg_kd/export/student.py', 'get_model'),
             ('mmseg_kd/export/formats.py', 'torch.jit.load'),
             ('mmseg_kd/teachers/exported.py', 'torch.jit.load'), ('mmseg_kd/safe_load/reading.py', 'torch.load')}
    found = set()
    for path in [*(ROOT / 'mmseg_kd').rglob('*.py'), *(ROOT / 'tools').rglob('*.py')]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in dangerous:
                found.add((str(path.relative_to(ROOT)), ast.unparse(node.func)))
    assert found == known


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), 'w')


@pytest.fixture(scope='module')
def places(mini_cityscapes, tmp_path_factory):
    """What the command lines name, and the file that must never appear."""
    root = tmp_path_factory.mktemp('strangers')
    mark = root / 'ran'
    weights = build(segmentor()).state_dict()
    evil = dict(state_dict=weights, meta=dict(iter=2, epoch=0), optimizer=Evil(mark))
    torch.save(evil, root / 'evil.pth')
    config = run_config(segmentor(), mini_cityscapes, max_iters=4)
    teaching = run_config(distilled(segmentor(), segmentor(), root / 'evil.pth'), mini_cityscapes)
    config.dump(root / 'config.py')
    teaching.dump(root / 'distilled.py')
    records = [dict(loss=1., time=1., step=4), dict(mIoU=1., step=4)]
    for name, settings in dict(run=teaching, stopped=config, plain=config, program=config, resumed=config).items():
        write_run(root / name, settings, records)
        (root / f'{name}/last_checkpoint').write_text(str(root / f'{name}/iter_4.pth'))
        torch.save(evil if name in ('run', 'stopped') else dict(state_dict=weights), root / f'{name}/iter_4.pth')
    script = f'open({str(mark)!r}, "w")\n'
    log, = root.glob('program/*/vis_data/config.py')
    log.write_text(log.read_text() + script)
    model = build(segmentor())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    hub = dict(log_scalars={}, runtime_info={}, resumed_keys={})
    torch.save(dict(state_dict=weights, meta=dict(iter=4, epoch=0, config=script), optimizer=optimizer.state_dict(),
                    message_hub=hub, param_schedulers=[{}]), root / 'resumed/iter_4.pth')
    return dict(checkpoint=root / 'evil.pth', config=root / 'config.py', distilled=root / 'distilled.py',
                **{name: root / name for name in ('run', 'stopped', 'plain', 'program', 'resumed')}), mark


@pytest.fixture(scope='module')
def python():
    server = Server()
    yield server
    server.stop()


@pytest.mark.parametrize('tool', READS)
def test_no_code_runs(tool, places, python, tmp_path):
    names, mark = places
    for number, (line, answer) in enumerate(READS[tool]):
        argv = [word.format(out=tmp_path / f'out{number}', **names) for word in line]
        code, printed = python.run([str(ROOT / f'tools/{tool}.py'), *argv], tmp_path)
        assert not mark.exists(), f'{tool} ran the code of {line}'
        # It has really come to the file.
        assert (answer in printed and code) if answer else not code, printed[-3000:]
