"""How much code of this package one training step with DKD runs: what someone reads who wants to know what it does."""
import sys
from pathlib import Path

import pytest
import torch
from tiny import batch, build, distilled, segmentor

import mmseg_kd
from mmseg_kd.losses import DKDLoss

PACKAGE = str(Path(mmseg_kd.__file__).parent)


def run_by(step):
    """Files and functions of the package that run in ``step()``."""
    files, functions = set(), set()

    def watch(frame, event, _):
        code = frame.f_code
        if event == 'call' and code.co_filename.startswith(PACKAGE):
            files.add(code.co_filename[len(PACKAGE) + 1:])
            functions.add((code.co_filename[len(PACKAGE) + 1:], code.co_qualname if hasattr(code, 'co_qualname') else
                           code.co_name, code.co_firstlineno))

    step()  # what is done once is done
    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        step()
    finally:
        sys.setprofile(before)
    return sorted(files), sorted(functions)


def shown(files, functions):
    return '\n'.join([*files, *(f'  {name} ({file}:{line})' for file, name, line in functions)])


# To be reached: 25 functions in the plain form.
@pytest.mark.parametrize('kernels,most_files,most_functions', [('naive', 5, 32), ('auto', 10, 40)])
def test_a_loss(kernels, most_files, most_functions, monkeypatch):
    monkeypatch.setenv('MMSEG_KD_KERNELS', kernels)
    student, teacher = torch.randn(2, 5, 8, 8, requires_grad=True), torch.randn(2, 5, 8, 8)
    target, loss = torch.randint(5, (2, 8, 8)), DKDLoss()
    files, functions = run_by(lambda: loss(student, teacher, target).backward())
    assert len(files) <= most_files and len(functions) <= most_functions, shown(files, functions)


@pytest.mark.parametrize('kernels,most_files,most_functions', [('naive', 12, 60), ('auto', 14, 60)])
def test_a_training_step(kernels, most_files, most_functions, monkeypatch):
    """Teacher, student, terms, loss and backward pass of a distilled FCN."""
    monkeypatch.setenv('MMSEG_KD_KERNELS', kernels)
    model = build(distilled(segmentor(), segmentor(16))).train()
    data = model.data_preprocessor(batch(), True)

    def step():
        losses = model.loss(data['inputs'], data['data_samples'])
        sum(value for name, value in losses.items() if 'loss' in name).backward()

    files, functions = run_by(step)
    assert len(files) <= most_files and len(functions) <= most_functions, shown(files, functions)
