"""Teachers that are asked only for features: what the taps do not need does not run, and need not be there."""
import pytest
import torch
from mmengine.model import BaseModel
from mmseg.registry import MODELS
from tiny import batch, build, distilled, preprocessor, segmentor
from torch import nn


@MODELS.register_module()
class BackboneWithClassifier(BaseModel):
    """A model without decode head and without ``extract_feat``, as classifiers may be."""

    def __init__(self, backbone, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.backbone = MODELS.build(backbone)
        self.pooled = nn.AdaptiveAvgPool2d(1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.pooled(self.backbone(inputs)[-1])


def headless():
    return dict(type='BackboneWithClassifier', backbone=segmentor(16)['backbone'], data_preprocessor=preprocessor())


def losses_of(teacher, on, **settings):
    model = build(distilled(segmentor(dropout_ratio=0.), teacher, distill=dict(
        x=dict(loss=dict(type='mmseg_kd.AttentionTransferLoss'), on=on))) | settings)
    data = model.data_preprocessor(batch(), True)
    return model, data, model.train().loss(data['inputs'], data['data_samples'])


def refuse(*args, **kwargs):
    raise AssertionError('this part was not asked for')


@pytest.mark.parametrize('on, spared', [
    ('backbone.layer3', 'decode_head'), (('backbone.layer3', 'backbone[2]'), 'decode_head')])
def test_the_head_does_not_run(on, spared):
    model, data, losses = losses_of(segmentor(16), on)
    wanted = losses['distill.loss_x'].item()
    getattr(model.teacher.model, spared).forward = refuse
    again = model.loss(data['inputs'], data['data_samples'])['distill.loss_x'].item()
    assert again == wanted > 0


def test_where_logits_are_read_it_does():
    """And where a tap lies inside the head."""
    model, data, _ = losses_of(segmentor(16), ('backbone.layer3', 'decode_head.convs'))
    model.teacher.model.decode_head.forward = refuse
    with pytest.raises(AssertionError, match='was not asked for'):
        model.loss(data['inputs'], data['data_samples'])


@pytest.mark.parametrize('on', [('backbone.layer4', 'backbone.layer3'), ('backbone.layer4', 'backbone[1]')])
def test_a_teacher_without_decode_head_teaches(on):
    """The loss is that of the features of its backbone, run by itself."""
    from mmseg_kd.functional import attention_transfer_loss
    model, data, losses = losses_of(headless(), on)
    with torch.no_grad():
        maps = model.teacher.model.backbone(data['inputs'])
        own = model.backbone(data['inputs'])[3]
    theirs = maps[2] if on[1] == 'backbone.layer3' else maps[1]
    theirs = nn.functional.interpolate(theirs, own.shape[2:], mode='bilinear')
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in data['data_samples']])
    labels = nn.functional.interpolate(labels[:, None].double(), own.shape[2:], mode='nearest')[:, 0].long()
    wanted = attention_transfer_loss(own, theirs, labels.where(labels == 255, 0))
    assert losses['distill.loss_x'].item() == pytest.approx(wanted.item(), rel=1e-4)


def test_what_is_behind_its_backbone_can_be_read():
    mse = dict(x=dict(loss=dict(type='mmseg_kd.FeatureMSELoss'), on=('backbone.layer4', 'pooled'),
                      adapter=dict(kind='linear')))
    assert losses_of(headless(), 'backbone.layer4', distill=mse)[2]['distill.loss_x'].isfinite()


def test_its_logits_are_refused():
    with pytest.raises(ValueError, match='`teacher.config`: a BackboneWithClassifier without `decode_head` has no '
                                         'logits, and `distill.dkd.on` reads logits. .* name modules'):
        build(distilled(segmentor(), headless()))
