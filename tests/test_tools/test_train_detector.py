"""A distilled detector through the tools: trained, resumed, tested."""
import json

import pytest
import tiny_det  # noqa: F401 (skips without mmdet)
import torch
from tiny import ROOT, command

from mmseg_kd.datasets import write_coco_instances

pytestmark = pytest.mark.det
CONFIG = 'configs/demo/binary-kl_gfl-r18-w32_gfl-r18-w16_mini-cityscapes-64x128.py'


@pytest.fixture(scope='module')
def runs(mini_cityscapes, tmp_path_factory):
    """Work dirs of a run of 4 iterations, and of one that was stopped after 2 and resumed."""
    write_coco_instances(mini_cityscapes, min_pixels=4)
    folder = tmp_path_factory.mktemp('runs')
    options = ['--cfg-options', 'model.teacher.checkpoint=None', 'train_dataloader.batch_size=2',
               'train_cfg.max_iters=4', 'train_cfg.val_interval=4', 'default_hooks.checkpoint.interval=2',
               'default_hooks.logger.interval=1',
               # After four iterations no box is above the usual threshold, and mmdet then gives no mAP.
               'model.test_cfg.score_thr=0.',
               f'val_evaluator.ann_file={mini_cityscapes}/annotations/instances_val.json',
               f'test_evaluator.ann_file={mini_cityscapes}/annotations/instances_val.json',
               *(f'{split}_dataloader.dataset.data_root={mini_cityscapes}' for split in ('train', 'val', 'test'))]
    command('tools/train.py', CONFIG, '--work-dir', folder / 'whole', *options)
    resumed = folder / 'resumed'
    resumed.mkdir()
    (resumed / 'iter_2.pth').write_bytes((folder / 'whole/iter_2.pth').read_bytes())
    (resumed / 'last_checkpoint').write_text(str(resumed / 'iter_2.pth'))
    command('tools/train.py', CONFIG, '--work-dir', resumed, '--resume', *options)
    return folder, options


def test_resume_gives_the_weights_of_the_undisturbed_run(runs):
    whole, resumed = (torch.load(runs[0] / name / 'iter_4.pth', weights_only=False)['state_dict']
                      for name in ('whole', 'resumed'))
    assert list(whole) == list(resumed)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    before = torch.load(runs[0] / 'whole/iter_2.pth', weights_only=False)['state_dict']
    assert not torch.equal(before['bbox_head.gfl_cls.weight'], whole['bbox_head.gfl_cls.weight'])


def test_the_log_has_both_terms_and_coco_map(runs):
    path, = (runs[0] / 'whole').glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in path.read_text().splitlines()]
    training = [record for record in records if 'loss' in record]
    assert len(training) == 4
    for record in training:
        assert record['distill.loss_binary_kl'] > 0 and record['distill.loss_ld'] > 0
    assert any('coco/bbox_mAP' in record for record in records)


def test_the_checkpoint_is_the_plain_students(runs):
    """tools/test.py builds the student without its teacher; its keys are those of plain mmdet's GFL."""
    folder, options = runs
    printed = command('tools/test.py', CONFIG, folder / 'whole/iter_4.pth', '--work-dir', folder / 'test',
                      *options).stdout
    assert 'coco/bbox_mAP' in printed
    from mmengine.config import Config
    config = Config.fromfile(ROOT / 'configs/demo/gfl_r18-w16_mini-cityscapes-64x128.py', import_custom_modules=False)
    plain = tiny_det.build_detector(config.model)
    state = torch.load(folder / 'whole/iter_4.pth', weights_only=False)['state_dict']
    plain.load_state_dict(state, strict=True)
