"""Every command of the documents is run by a test: by the guides', here in small, or by one that is named here."""
import os
import re
import subprocess
from pathlib import Path

import pytest
from documents import Command, all_commands
from mmengine.config import Config
from test_guides import GUIDES
from tiny import ROOT

DOCUMENTS = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md'), *(ROOT / 'configs').rglob('*.md')])
#: What a command begins with, to the test that runs it.
RUN_BY = {
    'python tools/train.py': 'tests/test_tools/test_train_and_test.py',
    'python tools/test.py': 'tests/test_tools/test_train_and_test.py',
    'bash tools/dist_train.sh': 'tests/test_tools/test_train_and_test.py',
    'bash tools/dist_test.sh': 'tests/test_tools/test_train_and_test.py',
    'bash tools/slurm_train.sh': 'tests/test_tools/test_train_and_test.py',
    'python tools/cache_teacher.py': 'tests/test_tools/test_cache_teacher.py',
    'python tools/pseudo_label.py': 'tests/test_tools/test_pseudo_label.py',
    'python tools/export_student.py': 'tests/test_export/test_plain.py',
    'python -m': 'tests/test_release.py',
    'mmseg-kd distil': 'tests/test_commands/test_distil.py',
    'mmseg-kd train': 'tests/test_commands/test_distil.py',
    'python tools/benchmarks/compile_kernels.py': 'tests/test_functional/test_triton_compiles.py',
    'python tools/check_dataset.py': 'tests/test_tools/test_check_dataset.py',
    'python tools/dataset_converters/mini_cityscapes.py': 'tests/test_tools/test_mini_cityscapes.py',
    'python tools/torchvision_beside_cpu_torch.py': 'tests/test_tools/test_torchvision_beside_cpu_torch.py',
    'python tools/analysis/compare.py': 'tests/test_tools/test_compare.py',
    'python tools/analysis/dual_head_conflict.py': 'tests/test_tools/test_dual_head_conflict.py',
    'python tools/analysis/measure_topk.py': 'tests/test_tools/test_measure_topk.py',
    'python tools/analysis/neural_collapse.py': 'tests/test_tools/test_neural_collapse.py',
    'python tools/analysis/report.py': 'tests/test_tools/test_report.py',
    'python tools/analysis/walk_segmentors.py': 'tests/test_distillers/test_every_segmentor.py',
    'pip install': 'tools/environment.sh',  # which .ci/run begins with
    'bash tools/compatibility.sh': 'tests/test_tools/test_compatibility.py',
    'bash tools/mmcv_with_ops.sh': 'tools/detection_environment.sh',
    'bash tools/docs.sh': 'tests/test_docs/test_site.py',
    'bash tools/test.sh': '.ci/run',
    'bash tools/quickstart.sh': '.ci/run',
}
SMALL_STEP = ['--rounds', '2', '--warmup', '1', '--batch-size', '2', '--size', '32', '64']
#: Benchmarks, and what makes them small.
BENCHMARKS = {
    'tools/benchmarks/first_experience.py': ['--first', '2'],
    'tools/benchmarks/distill_statistics.py': ['--interval', '2', *SMALL_STEP],
    'tools/benchmarks/distill_step.py': SMALL_STEP,
    'tools/benchmarks/grad_align.py': SMALL_STEP,
    'tools/benchmarks/operators.py': ['--losses', 'dkd', '--shapes', '1x5x16x24', '--rounds', '1', '--no-compile'],
    'tools/benchmarks/step_memory.py': ['--batch-size', '2', '--size', '32', '64'],
    'tools/benchmarks/processes.py': ['--processes', '1', '2', '--batch', '2', '--size', '32', '64', '--steps', '2'],
}
#: Studies, and the trainings that they start for one seed.
STUDIES = {
    'tools/analysis/camvid_study.sh': (['{data}', '--seeds', '0', '--cached', 'kd', '--every', '2'], 10),
    'tools/analysis/collapse_study.sh': ([], 13),
    'tools/analysis/digits_study.sh': (['--seeds', '0'], 12),
    'tools/analysis/recipes_study.sh': (['--seeds', '0'], 25),
}
#: Settings that a config need not have.
OPTIONAL = re.compile(r'randomness\.seed|model\.teacher\.cache|train_dataloader\.dataset\.indices|'
                      r'model\.dual_head\.kind|'
                      # What a loss does not know it refuses itself.
                      r'model\.distill\.d?kd\.(loss\.\w+|on|target)')


def guide_commands(path: Path) -> list[Command]:
    return [] if path.name in GUIDES and path.parent == ROOT / 'docs' else all_commands(path)


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_is_run_by_a_test(path):
    for command in guide_commands(path):
        words = command.words
        begin = ' '.join(words[:2])
        if words[1] in BENCHMARKS or words[1] in STUDIES:
            continue
        assert begin in RUN_BY, f'{path.name}: no test is known to run {str(command)!r}'
        if words[1] == 'tools/train.py' and words[2].startswith('configs/') and '<' not in words[2]:
            assert (ROOT / words[2]).is_file(), f'{path.name}: {words[2]} does not exist'


@pytest.mark.parametrize('begin', RUN_BY)
def test_the_named_test_runs_it(begin):
    script = Path(begin.split()[1]).name
    text = (ROOT / RUN_BY[begin]).read_text()
    assert script in text or script.removesuffix('.py') in text


@pytest.mark.parametrize('script', BENCHMARKS)
def test_benchmark(script, python, tmp_path):
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    code, printed = python.run([str(ROOT / script), *BENCHMARKS[script]], tmp_path)
    assert code == 0, printed[-3000:]
    assert re.search(r'\d+\.\d+', printed)


@pytest.mark.parametrize('script', STUDIES)
def test_study(script, tmp_path):
    """Each of its trainings has a config, settings that the config knows, and a work dir that is evaluated then."""
    arguments, count = STUDIES[script]
    pictures = tmp_path / 'data/leftImg8bit/train/street'
    pictures.mkdir(parents=True)
    for index in range(3):
        (pictures / f'{index}_leftImg8bit.jpg').touch()
    typed = tmp_path / 'typed.txt'
    # In the place of Python: notes what it is asked for.
    stub = tmp_path / 'python'
    stub.write_text(f'#!/bin/sh\nfor word in "$@"; do printf "%s\\t" "$word"; done >> {typed}; echo >> {typed}\n')
    stub.chmod(0o755)
    arguments = [word.format(data=tmp_path / 'data') for word in arguments]
    subprocess.run(['bash', str(ROOT / script), *arguments, '--out', str(tmp_path / 'out')], check=True,
                   env={**os.environ, 'PYTHON': str(stub)}, capture_output=True)
    commands = [line.rstrip('\t').split('\t') for line in typed.read_text().splitlines()]
    trainings = [command for command in commands if command[0] == 'tools/train.py']
    assert len(trainings) == count
    if '--every' in arguments:
        seen = ['train_dataloader.dataset.indices=[0,2]' in command for command in trainings]
        assert seen == [False] + [True] * (count - 1)  # the teacher has learned from all
    work_dirs = [command[command.index('--work-dir') + 1] for command in trainings]
    assert len(set(work_dirs)) == count
    for command in trainings:
        config = Config.fromfile(ROOT / command[1])
        for word in command[command.index('--cfg-options') + 1:]:
            key, _, value = word.partition('=')
            if '_delete_' not in key and 'loss.type' not in key and not OPTIONAL.fullmatch(key):
                assert_known(config, key)
            if key == 'model.teacher.checkpoint':
                assert str(Path(value).parent) in work_dirs
    read = [word for command in commands for word in command if word not in work_dirs]
    for work_dir in work_dirs:
        assert any(f'{work_dir}{end}' in f'{word},' for word in read for end in ',/'), f'nobody reads {work_dir}'


def assert_known(config, key: str) -> None:
    node = config
    for part in key.split('.'):
        node = node[int(part)] if part.isdigit() else node
        if part.isdigit():
            continue
        assert part in node, f'{key}: the config has no {part!r}'
        node = node[part]


