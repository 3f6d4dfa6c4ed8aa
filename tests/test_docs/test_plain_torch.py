"""The blocks of docs/plain_torch.md run as they stand, each by itself."""
import pytest
import torch
from documents import FENCE
from tiny import ROOT

BLOCKS = [text for language, _, text in FENCE.findall((ROOT / 'docs/plain_torch.md').read_text())
          if language == 'python']


def run(block, folder, monkeypatch, capsys):
    """What a block prints, run in an empty folder."""
    monkeypatch.chdir(folder)
    exec(compile(block, 'docs/plain_torch.md', 'exec'), {'__name__': 'block'})
    return capsys.readouterr().out


def test_a_loop_of_ones_own(tmp_path, monkeypatch, capsys):
    printed = run(BLOCKS[0], tmp_path, monkeypatch, capsys)
    assert printed.count('loss_supervised') == printed.count('distill.loss_dkd') == 3
    assert list(torch.load(tmp_path / 'student.pth', weights_only=True)) == ['0.weight', '0.bias', '2.weight', '2.bias']


@pytest.mark.lightning
def test_lightning(tmp_path, monkeypatch, capsys):
    printed = run(BLOCKS[1], tmp_path, monkeypatch, capsys)
    assert 'loss_supervised' in printed and 'distill.loss_kd' in printed


@pytest.mark.hf
def test_hugging_face(tmp_path, monkeypatch, capsys):
    assert float(run(BLOCKS[2], tmp_path, monkeypatch, capsys).splitlines()[-1]) > 0
    from transformers import SegformerForSemanticSegmentation
    SegformerForSemanticSegmentation.from_pretrained(tmp_path / 'work_dirs/segformer/student')


def test_every_block_is_run():
    assert len(BLOCKS) == 3
