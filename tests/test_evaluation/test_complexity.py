"""Parameters and multiply-adds against sums written out by hand."""
import pytest
import tiny
from mmengine.config import Config

from mmseg_kd.evaluation.complexity import complexity, input_size


def test_auxiliary_heads_do_not_count():
    plain = tiny.segmentor()
    with_auxiliary = plain | dict(auxiliary_head=dict(plain['decode_head'], in_channels=32, in_index=2))
    model = tiny.build(with_auxiliary)
    without = sum(p.numel() for name, p in model.named_parameters() if not name.startswith('auxiliary_head'))
    counted = complexity(model, (32, 64))
    assert counted == complexity(tiny.build(plain), (32, 64)) and counted.parameters == without


@pytest.mark.parametrize('config, size', [
    (dict(crop_size=(8, 16), model=dict(data_preprocessor=dict(size=(3, 4)))), (8, 16)),
    (dict(model=dict(data_preprocessor=dict(size=(3, 4)))), (3, 4)),
    (dict(model=dict(), train_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=dict(
        pipeline=[dict(type='LoadImageFromFile'), dict(type='RandomResizedCrop', scale=224)])))), (224, 224)),
    (dict(model=dict(), train_dataloader=dict(dataset=dict(pipeline=[dict(type='RandomCrop', crop_size=32)]))),
     (32, 32)),
])
def test_size_of_the_training_images(config, size):
    assert input_size(Config(config)) == size


def test_a_config_that_says_no_size_is_refused():
    with pytest.raises(ValueError, match='give `--size HEIGHT WIDTH`'):
        input_size(Config(dict(model=dict(type='EncoderDecoder'))))
