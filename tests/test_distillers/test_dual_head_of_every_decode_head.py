"""The dual head around every head of mmseg: those that classify through conv_seg train, the others are refused."""
import pytest
import torch
from decode_heads import HEADS, student
from mmengine.optim import OptimWrapper
from mmengine.structures import PixelData
from mmseg.models import decode_heads
from tiny import batch, build, distilled, segmentor
from torch import nn

from mmseg_kd.distillers.segmentation.heads import main_classifier

# Reason in the message, by which a user knows that the refusal is meant.
REFUSED = dict(
    PointHead='points', SegmenterMaskTransformerHead='embeddings', MaskFormerHead='queries', Mask2FormerHead='queries',
    IterativeDecodeHead='kernels', SideAdapterCLIPHead='text embeddings', VPDDepthHead='depth')
# Parts of K-Net's head, never the head of a model.
PARTS = {'KernelUpdateHead', 'KernelUpdator'}
# Written in CUDA and C++, absent from the pure Python wheel of mmcv.
NEEDS_OPS = {'CCHead': 'CrissCrossAttention', 'PSAHead': 'PSAMask'}
AUX = dict(dhkd=dict(loss=dict(type='mmseg_kd.BinaryKLNormLoss'), on='aux_logits'))


def test_no_head_is_forgotten():
    assert set(decode_heads.__all__) == set(HEADS) | set(REFUSED) | PARTS


def dual(config, kind, distill=AUX, **settings):
    heads = config['decode_head']
    teacher = segmentor(num_classes=(heads[-1] if isinstance(heads, list) else heads)['num_classes'])
    model = distilled(config, teacher, distill=distill)
    if config['type'] == 'CascadeEncoderDecoder':
        model['type'] = 'mmseg_kd.DistilledCascadeEncoderDecoder'
    return model | dict(dual_head=dict(kind=kind)) | settings


@pytest.mark.parametrize('kind', ['linear', 'nonlinear'])
@pytest.mark.parametrize('head', sorted(HEADS))
def test_a_step_trains_both_classifiers(head, kind):
    if head in NEEDS_OPS:
        pytest.importorskip('mmcv._ext', reason=f'{NEEDS_OPS[head]} needs mmcv with compiled ops')
    config, size = student(head)
    torch.manual_seed(0)
    model = build(dual(config, kind)).train()
    num_classes = model.out_channels
    data = batch(height=size[0], width=size[1], num_classes=num_classes)
    for sample in data['data_samples']:
        edges = torch.randint(0, 2, sample.gt_sem_seg.data.shape)
        sample.gt_edge_map = PixelData(data=edges)
    model.data_preprocessor.size = size
    seen = {}
    main = model.main_classifier()
    main.register_forward_hook(lambda module, args, output: seen.update(main=(args[0], output)))
    model.auxiliary_classifier.register_forward_hook(lambda module, args, output: seen.update(aux=(args[0], output)))
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    losses = model.train_step(data, OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)))

    assert seen['aux'][0] is seen['main'][0], 'the two classifiers read different features'
    assert seen['aux'][1].shape == seen['main'][1].shape
    assert torch.isfinite(losses['loss']) and losses['distill.loss_dhkd'] > 0
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert {name for name in before if name.startswith('distill.dual_head.')} <= changed
    assert any(name.endswith('conv_seg.weight') for name in changed)


@pytest.mark.parametrize('head', ['FCNHead', 'DAHead', 'OCRHead'])
def test_the_main_classifier_sees_the_supervised_loss_alone(head):
    """Without the supervised losses, the classifier gets no gradient, and everything below the features does."""
    model = build(dual(student(head)[0], 'linear')).train()
    data = model.data_preprocessor(batch(), True)
    losses = model.loss(data['inputs'], data['data_samples'])
    losses['distill.loss_dhkd'].backward()
    assert model.main_classifier().weight.grad is None
    assert model.auxiliary_classifier.weight.grad.abs().sum() > 0
    assert model.backbone.stem[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize('head', sorted(REFUSED))
def test_heads_without_a_classifier_are_refused_by_name(head):
    cls = getattr(decode_heads, head)
    instance = cls.__new__(cls)
    nn.Module.__init__(instance)
    with pytest.raises(ValueError, match=f'`dual_head`: {head} .*{REFUSED[head]}'):
        main_classifier(instance)


def test_a_subclass_of_a_refused_head_is_refused_by_its_own_name():
    class MySegmenter(decode_heads.SegmenterMaskTransformerHead):
        pass

    instance = MySegmenter.__new__(MySegmenter)
    nn.Module.__init__(instance)
    with pytest.raises(ValueError, match='MySegmenter .*embeddings'):
        main_classifier(instance)


def test_a_config_with_a_refused_head_fails_when_it_is_built():
    config = segmentor()
    config['backbone'] = dict(type='VisionTransformer', img_size=(32, 64), embed_dims=16, num_layers=1, num_heads=2)
    config['decode_head'] = dict(
        type='SegmenterMaskTransformerHead', in_channels=16, channels=16, num_classes=19, num_layers=1, num_heads=2,
        embed_dims=16, loss_decode=dict(type='CrossEntropyLoss'))
    with pytest.raises(ValueError, match='`dual_head`: SegmenterMaskTransformerHead'):
        build(dual(config, 'linear'))
    # Its logits are still good for every other distillation.
    build(distilled(config, segmentor()))
