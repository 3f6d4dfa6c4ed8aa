"""teacher=dict(type='huggingface'): tiny random networks, made from their config classes and saved to a folder."""
import copy
import json
import os

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax
from tiny import batch, build, command, distilled, run_config, segmentor
from torch import nn

pytestmark = pytest.mark.hf
LABELS = {index: f'thing {index}' for index in range(19)}
SMALL = dict(hidden_size=16, num_attention_heads=2, intermediate_size=16, image_size=64, patch_size=16)


def network(name):
    """A tiny network of one kind, whose weights are far enough from 0 to have an opinion."""
    made = untrained(name)
    for part, value in made.named_parameters():
        if value.dim() in (2, 4):
            nn.init.kaiming_normal_(value)
        elif 'bias' in part and len(value) in (19, 20):
            nn.init.normal_(value)
    return made


def untrained(name):
    import transformers as hf
    swin = hf.SwinConfig(image_size=64, embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=4,
                         out_features=['stage1', 'stage2', 'stage3', 'stage4'])
    query = dict(backbone_config=swin, num_queries=6, id2label=LABELS)
    torch.manual_seed(2)
    if name == 'SegFormer':
        return hf.SegformerForSemanticSegmentation(hf.SegformerConfig(
            hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=16,
            id2label=LABELS))
    if name == 'UPerNet':
        convnext = hf.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, out_features=swin.out_features)
        return hf.UperNetForSemanticSegmentation(hf.UperNetConfig(
            backbone_config=convnext, hidden_size=16, use_auxiliary_head=False, pool_scales=[1, 2], id2label=LABELS))
    if name == 'DPT':
        return hf.DPTForSemanticSegmentation(hf.DPTConfig(
            num_hidden_layers=4, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8] * 4, fusion_hidden_size=8,
            use_auxiliary_head=False, is_hybrid=False, id2label=LABELS, **SMALL))
    if name == 'BEiT':
        return hf.BeitForSemanticSegmentation(hf.BeitConfig(
            num_hidden_layers=4, out_indices=[0, 1, 2, 3], use_auxiliary_head=False, id2label=LABELS, **SMALL))
    if name == 'Mask2Former':
        return hf.Mask2FormerForUniversalSegmentation(hf.Mask2FormerConfig(
            feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16, encoder_layers=1,
            decoder_layers=2, num_attention_heads=2, dim_feedforward=16, **query))
    if name == 'MaskFormer':
        detr = hf.DetrConfig(d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
                             decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=6)
        return hf.MaskFormerForInstanceSegmentation(hf.MaskFormerConfig(
            fpn_feature_size=32, mask_feature_size=32, decoder_config=detr, backbone_config=swin, id2label=LABELS))
    if name == 'OneFormer':
        return hf.OneFormerForUniversalSegmentation(hf.OneFormerConfig(
            hidden_dim=32, conv_dim=32, mask_dim=32, encoder_feedforward_dim=16, encoder_layers=1, decoder_layers=2,
            dim_feedforward=16, num_attention_heads=2, text_encoder_width=16, text_encoder_num_layers=1,
            text_encoder_context_length=8, task_seq_len=8, max_seq_len=8, text_encoder_vocab_size=100,
            query_dec_layers=1, **query))
    return hf.EomtForUniversalSegmentation(hf.EomtConfig(
        num_hidden_layers=3, num_blocks=1, num_queries=6, id2label=LABELS, **SMALL))


def save(folder, name, **processor):
    import transformers as hf
    network(name).save_pretrained(folder)
    hf.SegformerImageProcessor(**processor).save_pretrained(folder)
    if name == 'OneFormer':
        words(['the', 'task', 'is', 'semantic']).save_pretrained(folder)
    return str(folder)


def words(known):
    """A tokenizer that knows a few words."""
    import tokenizers
    from transformers import PreTrainedTokenizerFast
    vocabulary = {word: index for index, word in enumerate(['[UNK]', '[PAD]', *known])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token='[UNK]'))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token='[UNK]', pad_token='[PAD]')


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp('hf'), {}

    def one(name):
        if name not in made:
            made[name] = save(folder / name, name)
        return made[name]
    return one


def with_teacher(folder, terms=None, **settings):
    terms = terms or dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss', temperature=1.)))
    return distilled(segmentor(dropout_ratio=0.), segmentor(16), distill=terms) | dict(
        teacher=dict(type='huggingface', model=str(folder), **settings))


def losses_of(config):
    model = build(config)
    raw = batch(height=64, width=96)
    data = model.data_preprocessor(copy.deepcopy(raw), True)
    return model, raw, data, model.train().loss(data['inputs'], data['data_samples'])


def log_probabilities(folder, name, raw, size=None):
    """What the network itself says of the raw pictures, in float64."""
    import transformers as hf
    own = getattr(hf, type(network(name)).__name__).from_pretrained(folder, dtype=torch.float32).eval()
    images = torch.stack(raw['inputs']).flip(1).double() / 255
    mean, std = (torch.tensor(values, dtype=torch.float64).reshape(3, 1, 1)
                 for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    images = ((images - mean) / std).float()
    shape = images.shape[2:]
    if size is not None:
        images = nn.functional.interpolate(images, size, mode='bilinear')
    task = dict(task_inputs=torch.tensor([[2, 3, 4, 5, 1, 1, 1, 1]] * 2)) if name == 'OneFormer' else {}
    with torch.no_grad():
        returned = own(pixel_values=images, **task)
    if 'logits' in returned:
        full = nn.functional.interpolate(returned.logits.double(), shape, mode='bilinear')
        return log_softmax(full.numpy(), axis=1)
    masks = nn.functional.interpolate(returned.masks_queries_logits.double(), images.shape[2:], mode='bilinear')
    classes = softmax(returned.class_queries_logits.double().numpy(), axis=-1)[:, :, :-1]
    scores = np.einsum('nqc,nqhw->nchw', classes, expit(masks.numpy()))
    logits = nn.functional.interpolate(torch.from_numpy(np.log(scores)), shape, mode='bilinear').numpy()
    return log_softmax(logits, axis=1)


@pytest.mark.parametrize('name, size', [
    ('SegFormer', None), ('UPerNet', None), ('DPT', (64, 64)), ('BEiT', None), ('Mask2Former', None),
    ('MaskFormer', None), ('OneFormer', None), ('EoMT', (64, 64))])
def test_the_loss_is_that_of_the_network_itself(saved, name, size):
    model, raw, data, losses = losses_of(with_teacher(saved(name)))
    assert model.teacher.classes == tuple(LABELS.values()) and model.teacher.num_classes == 19
    p = log_probabilities(saved(name), name, raw, size)
    with torch.no_grad():
        z = model(data['inputs'], mode='tensor')
    q = log_softmax(nn.functional.interpolate(z, p.shape[2:], mode='bilinear').double().numpy(), axis=1)
    labels = np.stack([sample.gt_sem_seg.data[0].numpy() for sample in data['data_samples']])
    wanted = (np.exp(p) * (p - q)).sum(1)[labels != 255].mean()
    assert wanted > 0.05
    assert losses['distill.loss_kd'].item() == pytest.approx(wanted, rel=5e-4)
    assert not set(model.state_dict()) - set(build(segmentor()).state_dict())


def test_its_processor_and_the_settings_say_how_images_are_made(saved, tmp_path):
    folder = save(tmp_path / 'halves', 'SegFormer', image_mean=[0.5] * 3, image_std=[0.25] * 3)
    renormalize = build(with_teacher(folder)).teacher.renormalize
    image = torch.tensor([255., 0., 51.]).reshape(1, 3, 1, 1)  # red, green, blue as the student's normalisation has it
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in ([123.675, 116.28, 103.53],
                                                                      [58.395, 57.12, 57.375]))
    torch.testing.assert_close(renormalize((image - mean) / std).flatten(), torch.tensor([2., -2., -1.2]))
    other = build(with_teacher(folder, mean=[0.] * 3, std=[1.] * 3, rgb=False)).teacher.renormalize
    torch.testing.assert_close(other((image - mean) / std).flatten(), torch.tensor([0.2, 0., 1.]), atol=1e-6, rtol=0)
    os.remove(f'{folder}/preprocessor_config.json')
    with pytest.raises(ValueError, match='`teacher.mean`: expected one number for each channel'):
        build(with_teacher(folder))


def test_its_features_teach(saved):
    mse = dict(mse=dict(loss=dict(type='mmseg_kd.FeatureMSELoss'), adapter=dict(kind='linear'),
                        on=('backbone.layer4', 'decode_head.linear_fuse')))
    model, _, _, losses = losses_of(with_teacher(saved('SegFormer'), mse))
    assert losses['distill.loss_mse'].item() > 0 and model.terms['mse'].adapters[0][0].weight.shape[0] == 16


def copied(saved, tmp_path, name, **changes):
    """A copy of a folder with its config changed."""
    import shutil
    folder = shutil.copytree(saved(name), tmp_path / name)
    config = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps(config | changes))
    return folder


def test_classes_without_names_have_none(saved, tmp_path):
    folder = copied(saved, tmp_path, 'SegFormer', id2label={str(index): f'LABEL_{index}' for index in range(19)})
    assert build(with_teacher(folder)).teacher.classes is None
    names = [f'c{index}' for index in range(19)]
    assert build(with_teacher(folder, classes=names)).teacher.classes == tuple(names)


def test_folders_that_are_refused(saved, tmp_path):
    folder = copied(saved, tmp_path, 'SegFormer')
    state = network('SegFormer').state_dict()
    (folder / 'model.safetensors').unlink()
    torch.save(state, folder / 'pytorch_model.bin')
    with pytest.raises(ValueError, match='`teacher.model`: .* has no .safetensors file, and pickled weights are not'):
        build(with_teacher(folder))
    from safetensors.torch import save_file
    save_file({name: value for name, value in state.items() if 'classifier' not in name}, folder / 'model.safetensors',
              metadata=dict(format='pt'))
    with pytest.raises(ValueError, match=r'do not fill the SegformerForSemanticSegmentation .* 2 are missing \(decode'):
        build(with_teacher(folder))
    (folder / 'model.safetensors').write_bytes(b'<!DOCTYPE html>')
    with pytest.raises(ValueError, match='`teacher.model`: .* weights'):
        build(with_teacher(folder))
    with pytest.raises(ValueError, match=r"expected a network for semantic .* got \['SegformerModel'\]"):
        build(with_teacher(copied(saved, tmp_path / 'bare', 'SegFormer', architectures=['SegformerModel'])))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='`teacher.model`: .* has no config.json that can be read .* save_pretrained'):
        build(with_teacher(tmp_path / 'empty'))
    one = copied(saved, tmp_path, 'OneFormer')
    words(['no']).save_pretrained(one)
    with pytest.raises(ValueError, match='does not know the words'):
        build(with_teacher(one))


@pytest.mark.parametrize('settings, message', [
    (dict(model=3), r'`teacher.model`: expected a folder'),
    (dict(checkpoint='x'), r"unknown setting \['checkpoint'\]")])
def test_refused_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        build(with_teacher('x') | dict(teacher=dict(type='huggingface') | settings))


def test_a_folders_code_does_not_run(saved, tmp_path):
    folder = copied(saved, tmp_path, 'SegFormer', model_type='mine', auto_map=dict(AutoConfig='mine.Config'))
    (folder / 'mine.py').write_text(f'open({str(tmp_path / "ran")!r}, "w")\n')
    with pytest.raises(ValueError, match='`teacher.model`: .* has no config.json that can be read'):
        build(with_teacher(folder))
    assert not (tmp_path / 'ran').exists()


def test_a_name_without_network(monkeypatch):
    """The hub is not asked: huggingface_hub says what it says where there is no network."""
    import transformers

    def nowhere(*args, **kwargs):
        raise OSError("We couldn't connect to 'https://huggingface.co' to load the files.\nCheck your connection")
    monkeypatch.setattr(transformers.AutoConfig, 'from_pretrained', nowhere)
    with pytest.raises(ValueError, match=r"couldn't connect .*no such folder here.*hf download someone/net --local"):
        build(with_teacher('someone/net'))


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'transformers', None)
    with pytest.raises(ImportError, match=r"type='huggingface' needs the extra \"hf\".*pip install 'mmseg_kd\[hf\]'"):
        build(with_teacher('x'))


def test_through_the_command_line(saved, mini_cityscapes, tmp_path):
    """Looked at, asked in bfloat16 and beside the student's own average; nothing of it is in the checkpoint."""
    config = with_teacher(saved('SegFormer'), dtype='bf16')
    config['teacher'] = [config['teacher'], dict(type='ema')]
    run_config(config, mini_cityscapes, max_iters=2, teacher_check=dict(min_miou=0), class_check=False).dump(
        tmp_path / 'config.py')
    printed = command('tools/train.py', tmp_path / 'config.py', '--work-dir', tmp_path).stdout
    assert '`teacher[0]` has' in printed and 'distill.loss_kd' in printed
    state = torch.load(tmp_path / 'iter_2.pth', weights_only=False)['state_dict']
    build(segmentor()).load_state_dict(state, strict=True)
