"""Teachers that classify masks: mmseg's own ``predict`` on made-up queries, without mmdet."""
import numpy as np
import pytest
import torch
from made_up_queries import QUERIES
from mmseg.models.decode_heads import MaskFormerHead
from scipy.special import expit, softmax
from tiny import batch, build, distilled, segmentor
from torch import nn

from mmseg_kd.distillers.segmentation.heads import as_logits


@pytest.mark.parametrize('kind', ['MadeUpMaskFormerHead', 'MadeUpMask2FormerHead'])
def test_its_distribution_is_that_of_its_scores(kind):
    teacher = segmentor(16, dilated=False)
    teacher['decode_head'] = dict(type=kind, num_classes=19, in_channels=128)
    model = build(distilled(segmentor(dropout_ratio=0.), teacher,
                            distill=dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss', temperature=1.)))))
    data = model.data_preprocessor(batch(), True)
    got = model.train().loss(data['inputs'], data['data_samples'])['distill.loss_kd'].item()

    guest, head = model.teacher.model, model.teacher.model.decode_head
    with torch.no_grad():
        masks = nn.functional.interpolate(
            head.masks(guest.extract_feat(data['inputs'])[3]), size=(32, 64), mode='bilinear').double().numpy()
        student = model.decode_head.forward(model.extract_feat(data['inputs']))
        student = nn.functional.interpolate(student, size=(32, 64), mode='bilinear').double().numpy()
    classes = softmax(head.classes.detach().double().numpy(), axis=-1)[:, :-1]
    scores = np.zeros((2, 19, 32, 64))
    for query in range(QUERIES):
        scores += classes[query][None, :, None, None] * expit(masks[:, query])[:, None]
    p, q = scores / scores.sum(1, keepdims=True), softmax(student, axis=1)
    divergence = (p * (np.log(p) - np.log(q))).sum(1)
    labels = np.stack([sample.gt_sem_seg.data[0].numpy() for sample in data['data_samples']])
    assert got == pytest.approx(divergence[labels != 255].mean(), rel=1e-4)


def test_a_score_of_zero_is_finite():
    head = MaskFormerHead.__new__(MaskFormerHead)
    for dtype in (torch.float32, torch.float16):
        assert as_logits(head, torch.tensor([0., 1.], dtype=dtype)).isfinite().all()


def test_dense_heads_predict_logits():
    values = torch.tensor([-1., 2.])
    assert as_logits(nn.Conv2d(1, 1, 1), values) is values


def test_as_a_student_it_is_refused():
    student = segmentor(16, dilated=False)
    student['decode_head'] = dict(type='MadeUpMask2FormerHead', num_classes=19, in_channels=128)
    with pytest.raises(ValueError, match='MadeUpMask2FormerHead computes its losses without a dense map'):
        build(distilled(student, segmentor(8)))
    terms = dict(dhkd=dict(loss=dict(type='mmseg_kd.BinaryKLNormLoss'), on='aux_logits'))
    with pytest.raises(ValueError, match='`dual_head`: MadeUpMask2FormerHead cannot .* queries'):
        build(distilled(student, segmentor(8), distill=terms) | dict(dual_head=dict(kind='linear')))
