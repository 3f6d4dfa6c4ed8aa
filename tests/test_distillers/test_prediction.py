"""Logits and labels of a picture, against mmseg's own evaluation of the same model."""
import copy

import made_up_queries  # noqa: F401 (registers heads)
import pytest
import tiny
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, DefaultScope
from mmseg.evaluation import IoUMetric

from mmseg_kd.distillers.segmentation.prediction import predict, predict_of_teacher

SLIDE = dict(mode='slide', crop_size=(32, 48), stride=(20, 28))
RESIZE = dict(type='Resize', scale=(100, 60), keep_ratio=True)


def network(case, width=8):
    """A segmentor of the case: ``head``, ``padding`` (test_cfg of the preprocessor), ``test_cfg``."""
    if case.get('head') == 'query':
        model = tiny.segmentor(width, dilated=False)
        model['decode_head'] = dict(type='MadeUpMask2FormerHead', num_classes=19, in_channels=8 * width)
    elif case.get('head') == 'cascade':
        model = tiny.cascade()
    elif case.get('head') == 'sigmoid':
        model = tiny.segmentor(width, num_classes=2, out_channels=1, threshold=0.4)
        model['decode_head']['loss_decode'] = dict(type='CrossEntropyLoss', use_sigmoid=True)
    else:
        model = tiny.segmentor(width)
        model['decode_head']['align_corners'] = case.get('head') == 'aligned'
    if 'padding' in case:
        model['data_preprocessor'] = tiny.preprocessor(test_cfg=case['padding'], pad_val=7.)
    # Inference reads its settings as attributes.
    return ConfigDict(model | dict(test_cfg=case.get('test_cfg', dict(mode='whole'))))


CASES = dict(
    plain=dict(), padded=dict(padding=dict(size_divisor=48)), padded_to_a_size=dict(padding=dict(size=(50, 90))),
    resized=dict(pipeline=[RESIZE]), slide=dict(test_cfg=SLIDE), query=dict(head='query'),
    sigmoid=dict(head='sigmoid', pipeline=[RESIZE]), cascade=dict(head='cascade', padding=dict(size_divisor=24)),
    aligned=dict(head='aligned', padding=dict(size_divisor=40), pipeline=[RESIZE]),
    everything=dict(padding=dict(size_divisor=28), pipeline=[RESIZE], test_cfg=SLIDE),
    # mmseg itself cannot slide a window over padded pictures with such a head.
    slide_of_queries=dict(head='query', pipeline=[RESIZE], test_cfg=SLIDE))


def data_of(case, root):
    """The validation pictures, with their labels made binary for a sigmoid."""
    settings = tiny.run_config(tiny.segmentor(), root).val_dataloader.dataset
    first, *rest = settings.pipeline
    settings.pipeline = [first, *case.get('pipeline', []), *rest]
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = DATASETS.build(settings)
    for index in range(len(dataset)):
        item = dataset[index]
        if case.get('head') == 'sigmoid':
            label = item['data_samples'].gt_sem_seg.data
            label[label < 19] = (label[label < 19] > 0).long()
        yield pseudo_collate([item])


def spread(model, seed=0):
    """Weights under which a random network prefers different classes at different pixels."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if 'conv_seg.weight' in name:
            torch.nn.init.normal_(parameter, std=3.)
    return model.eval()


def by_mmseg(model, batches, classes):
    """IoUMetric over a model's own ``val_step``, and what that says about each picture."""
    evaluator, said = Evaluator(IoUMetric(iou_metrics=['mIoU'])), []
    evaluator.dataset_meta = dict(classes=[str(c) for c in range(classes)])
    for batch in batches:
        samples = model.val_step(copy.deepcopy(batch))
        evaluator.process(samples, batch)
        said += samples
    return evaluator.evaluate(len(said)), said


def by_ours(predictions, classes):
    """mIoU and share of right pixels of our predictions, in percent."""
    matrix = torch.zeros(classes, classes)
    for each in predictions:
        valid = each.labels != 255
        matrix += torch.bincount(classes * each.labels[valid] + each.predicted[valid], minlength=classes**2).view(
            classes, classes)
    hit = matrix.diag()
    union = matrix.sum(0) + matrix.sum(1) - hit
    return 100 * (hit / union)[union > 0].mean().item(), 100 * (hit.sum() / matrix.sum()).item()


@pytest.mark.parametrize('name', CASES)
def test_a_plain_model_and_a_teacher_are_as_mmseg_sees_them(mini_cityscapes, name):
    """The teacher through a student that has another normalisation, other padding and no window."""
    case = CASES[name]
    batches = list(data_of(case, mini_cityscapes))
    model = spread(tiny.build(network(case)))
    classes = max(model.out_channels, 2)
    expected, said = by_mmseg(model, batches, classes)
    assert 0 < expected['mIoU'] < 90  # neither blind nor trivial

    before = [batch['data_samples'][0].keys() + list(batch['data_samples'][0].metainfo) for batch in batches]
    plain = [predict(model, batch)[0] for batch in batches]
    assert before == [batch['data_samples'][0].keys() + list(batch['data_samples'][0].metainfo) for batch in batches]

    preprocessor = tiny.preprocessor(mean=[10., 60., 200.], std=[90., 40., 70.], bgr_to_rgb=False,
                                     test_cfg=dict(size_divisor=36), pad_val=-3.)
    terms = dict(at=dict(loss=dict(type='mmseg_kd.AttentionTransferLoss'), on='backbone.layer4'))
    owner = tiny.build(tiny.distilled(
        tiny.segmentor(4) | dict(data_preprocessor=preprocessor), network(case), distill=terms))
    owner.teacher.model.load_state_dict(model.state_dict())
    guest = [predict_of_teacher(owner.teacher, owner.data_preprocessor, batch)[0] for batch in batches]

    for found in (plain, guest):
        miou, accuracy = by_ours(found, classes)
        # mmseg rounds to two places; the teacher's pixels went through float32 twice.
        assert miou == pytest.approx(expected['mIoU'], abs=.006 if found is plain else .05)
        assert accuracy == pytest.approx(expected['aAcc'], abs=.006 if found is plain else .05)
    for one, other, sample in zip(plain, guest, said, strict=True):
        assert torch.equal(one.predicted, sample.pred_sem_seg.data[0].long())
        assert torch.equal(one.labels, sample.gt_sem_seg.data[0])
        values = sample.seg_logits.data.double()
        if case.get('head') == 'sigmoid':
            probability = torch.cat([1 - values, values])
        elif case.get('head') == 'query':
            probability = values / values.sum(0)
        else:
            probability = values.softmax(0)
        for found in (one, other):
            torch.testing.assert_close(found.logits.double().softmax(0), probability, atol=1e-3, rtol=1e-3)
        assert (one.predicted == other.predicted).double().mean() > .999


def test_labels_that_were_resized_as_well_are_refused(mini_cityscapes):
    settings = tiny.run_config(tiny.segmentor(), mini_cityscapes).val_dataloader.dataset
    settings.pipeline.insert(2, RESIZE)
    with DefaultScope.overwrite_default_scope('mmseg'):
        item = DATASETS.build(settings)[0]
    with pytest.raises(ValueError, match=r'the size \(50, 100\), its prediction \(32, 64\).*Put LoadAnnotations'):
        predict(tiny.build(network({})).eval(), pseudo_collate([item]))
