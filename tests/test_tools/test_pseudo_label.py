"""tools/pseudo_label.py: a teacher's answers as label maps, and training on them."""
import json

import mmcv
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import build, command, distilled, run_config, segmentor
from torch.nn import functional as F


@pytest.fixture(scope='module')
def labelled(tmp_path_factory, mini_cityscapes):
    """A config, the weights of its teacher, and the maps that the tool wrote."""
    folder = tmp_path_factory.mktemp('labelled')
    weights = build(segmentor(16, 'PSPHead'), seed=5).state_dict()
    weights['decode_head.conv_seg.weight'] *= 400
    torch.save(weights, folder / 'teacher.pth')
    config = run_config(distilled(segmentor(), segmentor(16, 'PSPHead'), folder / 'teacher.pth'), mini_cityscapes)
    pipeline = config.val_dataloader.dataset.pipeline
    config.val_dataloader.dataset.pipeline = [
        pipeline[0], dict(type='Resize', scale=(128, 64), keep_ratio=True), *pipeline[1:]]
    config.dump(folder / 'config.py')
    done = command('tools/pseudo_label.py', folder / 'config.py', '--out', folder / 'maps', '--unlabelled',
                   mini_cityscapes / 'leftImg8bit/train', '--threshold', '.5', '--device', 'cpu')
    return folder, done.stdout


def test_the_maps_are_what_the_teacher_says(labelled, mini_cityscapes):
    """Against the teacher's own layers on a picture that is resized and normalised by hand."""
    folder, output = labelled
    assert 'label maps of 12 pictures' in output
    teacher = build(segmentor(16, 'PSPHead')).eval()
    teacher.load_state_dict(torch.load(folder / 'teacher.pth'))
    root = mini_cityscapes / 'leftImg8bit/train'
    pictures = sorted(root.rglob('*.png'))
    seen = set()
    for picture in pictures:
        name = str(picture.relative_to(root)).replace('_leftImg8bit.png', '_gtFine_labelTrainIds.png')
        written = np.asarray(Image.open(folder / 'maps' / name))
        large = mmcv.imresize(mmcv.imread(str(picture)), (128, 64))[..., ::-1].astype(np.float32)
        image = (large - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
        image = torch.from_numpy(image.transpose(2, 0, 1).copy()).float()[None]
        with torch.no_grad():
            logits = teacher.decode_head(teacher.extract_feat(image))
        for size in ((64, 128), (32, 64)):
            logits = F.interpolate(logits, size=size, mode='bilinear', align_corners=False)
        best = logits.softmax(1).max(1)
        near = (best.values - .5).abs()[0] < 1e-3
        expected = best.indices.masked_fill(best.values < .5, 255)[0]
        assert (torch.from_numpy(written.astype(np.int64)) == expected)[~near].float().mean() > .999
        seen |= set(np.unique(written))
    assert 255 in seen and len(seen) > 2
    assert Image.open(folder / 'maps' / name).getpalette()[:6] == [128, 64, 128, 244, 35, 232]  # road, sidewalk


def test_it_continues_and_refuses_other_settings(labelled, mini_cityscapes):
    folder, _ = labelled
    maps = sorted((folder / 'maps').rglob('*.png'))
    first = maps[0].read_bytes()
    maps[0].unlink()
    before = [path.stat().st_mtime_ns for path in maps[1:]]
    tool = ['tools/pseudo_label.py', folder / 'config.py', '--out', folder / 'maps', '--device', 'cpu', '--unlabelled',
            mini_cityscapes / 'leftImg8bit/train', '--threshold']
    command(*tool, '.5')
    assert maps[0].read_bytes() == first and [path.stat().st_mtime_ns for path in maps[1:]] == before
    done = command(*tool, '.6', check=False)
    assert done.returncode and "holds label maps of other settings, there {'threshold': 0.5}" in done.stdout
    assert json.loads((folder / 'maps/pseudo_label.json').read_text())['threshold'] == .5
