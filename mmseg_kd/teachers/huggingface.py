"""A teacher from Hugging Face: a folder that ``save_pretrained`` wrote, or a name on the hub."""
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from mmseg_kd.registry import import_with_extra

from .class_names import names_of_labels
from .class_scores import class_scores, scores_as_logits
from .guest import Teacher
from .host import Host
from .network import NETWORK_SETTINGS, guest_of, only_size, read_image_format, refuse_unknown
from .probe import input_channels

__all__ = ['build_huggingface_teacher']

_SETTINGS = ('model', *NETWORK_SETTINGS)
# The ways in which networks segment, by the end of their classes' names: a map of logits, or queries.
_DENSE, _QUERIES = 'ForSemanticSegmentation', ('ForUniversalSegmentation', 'MaskFormerForInstanceSegmentation')

_TASK = 'the task is semantic'


def build_huggingface_teacher(settings: dict, host: Host) -> Teacher:
    """Build the teacher of ``teacher=dict(type='huggingface', model='FOLDER_OR_NAME')``.

    Networks for semantic segmentation (SegFormer, UPerNet, DPT, BEiT, ...) teach by their logits; universal ones
    (Mask2Former, MaskFormer, OneFormer, EoMT) by the scores of the classes at each pixel, see
    :func:`~.class_scores.scores_as_logits`. Weights are read from ``.safetensors`` files only, and no code of the
    folder runs.

    Args:
        settings: ``model`` is a folder or a name on the hub. Its processor says how it wants its images, and its
            config what its classes are called; ``mean``, ``std``, ``scale``, ``rgb``, ``size`` and ``classes`` go
            before (see :func:`~.network.read_image_format`). A network that takes images of one size only is given
            that size.
        host: What is known of the student.

    Raises:
        ValueError: no such folder or name, no safetensors, weights that do not fill the network, or no network that
            segments.
        ImportError: the extra ``hf`` is missing.
    """
    refuse_unknown(settings, _SETTINGS, 'huggingface')
    name = settings.get('model')
    if not isinstance(name, str) or not name:
        raise ValueError("`teacher.model`: expected a folder that save_pretrained wrote, or a name on Hugging Face's "
                         f"hub like 'nvidia/segformer-b0-finetuned-ade-512-512', got {name!r}.")
    transformers = import_with_extra('transformers', 'hf', "`teacher`: type='huggingface'")
    # '~' means home in a folder's name.
    name = str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    config = _asked(name, 'config.json', lambda: transformers.AutoConfig.from_pretrained(name, trust_remote_code=False))
    network = _network(transformers, config, name)
    queries = not type(network).__name__.endswith(_DENSE)
    call = _call(transformers, network, name)
    channels = input_channels(network)
    size = only_size(network, call, channels, getattr(network.config, 'image_size', None))
    known = {**_processor(transformers, name), **size}
    return guest_of(network, _scores if queries else _logits, read_image_format(settings, known, channels), settings,
                    host, 'teacher.model', has_weights=True, classes=names_of_labels(config.id2label), call=call)


def _logits(returned: object, size: tuple[int, int]) -> Tensor:
    return returned.logits


def _scores(returned: object, size: tuple[int, int]) -> Tensor:
    return scores_as_logits(class_scores(returned.class_queries_logits, returned.masks_queries_logits, size))


def _asked(name: str, what: str, read: Callable) -> object:
    """What ``read`` returns; what transformers says to a name that leads nowhere becomes our words."""
    try:
        return read()
    except Exception as error:  # transformers', huggingface_hub's, safetensors'
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        way_out = ('Write it with save_pretrained.' if Path(name).is_dir() else
                   f'There is no such folder here. On a machine with network, `hf download {name} --local-dir FOLDER` '
                   'brings it; name the folder then.')
        raise ValueError(f'`teacher.model`: {name!r} has no {what} that can be read ({reason}). {way_out}') from error


def _network(transformers, config, name: str) -> nn.Module:
    kinds = [kind for kind in config.architectures or () if kind.endswith((_DENSE, *_QUERIES))]
    if not kinds or not hasattr(transformers, kinds[0]):
        raise ValueError(f'`teacher.model`: expected a network for semantic or universal segmentation, got '
                         f'{config.architectures} in {name!r}. A bare backbone can teach features: take it from timm '
                         "(type='timm'), or build it by type='module'.")
    if Path(name).is_dir() and not any(Path(name).glob('*.safetensors*')):
        raise ValueError(f'`teacher.model`: {name!r} has no .safetensors file, and pickled weights are not read, since '
                         'they can run code. Load it where you trust it and write it with save_pretrained.')
    with torch.random.fork_rng(devices=[]):
        network, info = _asked(name, 'weights (.safetensors)', lambda: getattr(transformers, kinds[0]).from_pretrained(
            name, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, output_loading_info=True))
    missing = sorted(info['missing_keys'])
    if missing:
        raise ValueError(f'`teacher.model`: the weights of {name!r} do not fill the {kinds[0]} of its config: '
                         f'{len(missing)} are missing ({", ".join(missing[:3])}).')
    return network


def _call(transformers, network: nn.Module, name: str) -> Callable[[nn.Module, Tensor], object]:
    if not type(network).__name__.startswith('OneFormer'):
        return lambda network, images: network(pixel_values=images, return_dict=True)
    # OneFormer is told in words what to do.
    tokenizer = _asked(name, 'tokenizer, which a OneFormer needs,',
                       lambda: transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False))
    words = tokenizer(_TASK, add_special_tokens=False)['input_ids']
    if not words or tokenizer.unk_token_id in words:
        raise ValueError(f'`teacher.model`: the tokenizer of {name!r} does not know the words {_TASK!r}, which tell a '
                         'OneFormer what to do. Bring the files of its tokenizer into the folder.')
    task = torch.tensor(tokenizer(_TASK, padding='max_length', max_length=network.config.task_seq_len,
                                  truncation=True)['input_ids'])
    return lambda network, images: network(pixel_values=images, task_inputs=task.to(images.device).expand(
        len(images), -1), return_dict=True)


def _processor(transformers, name: str) -> dict:
    """How the network's processor makes images, in our settings; nothing where there is no processor."""
    try:
        says, _ = transformers.ImageProcessingMixin.get_image_processor_dict(name)
    except (OSError, ValueError):
        return {}  # Then `mean` and `std` are asked for.
    scale = 1 / says.get('rescale_factor', 1 / 255) if says.get('do_rescale', True) else 1.
    if not says.get('do_normalize', True):
        return dict(scale=scale, mean=[0.] * 3, std=[1.] * 3)
    return {'scale': scale} | {key: list(says[f'image_{key}']) for key in ('mean', 'std') if says.get(f'image_{key}')}
