"""docs/tutorial.ipynb runs from top to bottom, in small."""
import os
import re

import pytest
from tiny import ROOT

nbclient = pytest.importorskip('nbclient')
pytestmark = pytest.mark.docs


def test_the_notebook_runs(tmp_path, monkeypatch):
    import nbformat
    monkeypatch.setenv('PYTHONPATH', f'{ROOT}{os.pathsep}{os.environ.get("PYTHONPATH", "")}')
    monkeypatch.delenv('MPLBACKEND', raising=False)  # pictures go into the notebook
    notebook = nbformat.read(ROOT / 'docs/tutorial.ipynb', as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == 'code']
    for typed, smaller in (('STEPS = 300', 'STEPS = 2'), ('num_train=128, num_val=40', 'num_train=24, num_val=27')):
        assert sum(typed in cell.source for cell in code) == 1
        for cell in code:
            cell.source = cell.source.replace(typed, smaller)
    nbclient.NotebookClient(notebook, timeout=300, resources=dict(metadata=dict(path=str(tmp_path)))).execute()
    printed = ''.join(output.get('text', '') for cell in code for output in cell.outputs)
    assert re.search(r'teacher \d+\.\d\d mIoU, student alone \d+\.\d\d', printed)
    assert "type='mmseg_kd.KDLoss'" in printed and re.search(r'distilled +\d+\.\d\d mIoU', printed)
    pictures = [output for cell in code for output in cell.outputs if 'image/png' in output.get('data', {})]
    assert len(pictures) == 3
    assert (tmp_path / 'work_dirs/kd/iter_2.pth').is_file()
