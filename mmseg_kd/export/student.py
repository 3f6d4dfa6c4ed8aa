"""Export of a trained student: written, run again, compared, and only then left."""
import copy
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor, nn

from .differences import difference, refuse
from .formats import FORMATS, check_installed
from .graph import PictureToLogits, logits_of, normalized, picture_to_logits
from .pictures import load_pictures
from .plain import build_plain, plain_config, save_plain

__all__ = ['export_student']

# What may change from call to call: batch, height and width; the batch; nothing.
_FREEDOM = ((0, 2, 3), (0, ), ())
_SCOPES = ('mmseg', 'mmpretrain')


def export_student(config: Config, checkpoint: str, out: str | Path, formats: Sequence[str] = (), plain: bool = True,
                   images: Sequence[str] | None = None, pictures: int = 4, repetitions: int = 20,
                   tolerance: float = 1e-4) -> dict:
    """Write the student of a training run for machines without mmseg_kd, checked on real pictures.

    ``out`` gets ``config.py`` and ``weights.pth`` for plain mmseg (or mmpretrain), a file for each of ``formats``, and
    the returned report as ``export.json``. It appears whole or not at all: what computes something else than the
    trained student is not left.

    Args:
        config: The training config, distilled or plain.
        checkpoint: What the training wrote: a file or a URL.
        out: A folder that does not exist, or is empty.
        formats: Some of ``'onnx'``, ``'torchscript'``, ``'export'`` (see :mod:`~.graph` for what they compute).
        plain: Whether to write config and weights.
        images: Picture files to check on; None: validation data of the config.
        pictures: How many of the validation data.
        repetitions: Timed calls of each form, taken in turns.
        tolerance: The largest difference of logits that passes, over the largest logit. The plain form must agree
            exactly.

    Returns:
        The report: per form its file, bytes, what is dynamic (and what was tried), differences, and milliseconds.

    Raises:
        ValueError: a setting, the checkpoint or the pictures do not fit, or an export differs; the message says which
            and by how much.
        ImportError: a format needs packages that are not installed.
    """
    out, formats = Path(out), list(dict.fromkeys(formats))
    check_installed(formats)
    if not formats and not plain:
        raise ValueError('`formats`: nothing is left to export; give at least one of --onnx, --torchscript, --export.')
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f'`out`: expected a folder that does not exist or is empty, got {str(out)!r}. Remove it, or '
                         'take another name.')
    if repetitions < 1:
        raise ValueError(f'`repetitions`: expected at least 1, got {repetitions}.')
    if config.get('default_scope', 'mmseg') not in _SCOPES:
        raise ValueError(f'`config`: expected a model of {" or ".join(_SCOPES)}, got the default_scope '
                         f'{config.default_scope!r}.')
    plain_cfg = plain_config(config) if plain else None
    model, meta = build_plain(config, checkpoint)
    items = load_pictures(config, images, pictures)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f'.{out.name}.', dir=out.parent))
    try:
        report = _write(folder, plain_cfg, model, meta, items, formats, tolerance, repetitions)
        report = dict(config=config.filename, checkpoint=str(checkpoint)) | report
        (folder / 'export.json').write_text(json.dumps(report, indent=2) + '\n')
        if out.exists():
            out.rmdir()
        folder.chmod(0o777 & ~_umask())
        os.replace(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return report


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write(folder: Path, plain_cfg: Config | None, model: nn.Module, meta: dict, items: list[dict],
           formats: list[str], tolerance: float, repetitions: int) -> dict:
    forms, callables = {}, {}
    if plain_cfg is not None:
        config, weights = save_plain(plain_cfg, model, meta, folder)
        forms['plain'] = dict(file=weights.name, bytes=weights.stat().st_size,
                              differences=[_check_plain(plain_cfg, config, weights, model, items)])
    eager = PictureToLogits(model)
    callables['plain'] = eager
    batches = _batches(model, items)
    notes = _notes(model, eager, meta, plain_cfg)
    graph = picture_to_logits(model)
    for name in formats:
        forms[name], callables[name] = _write_format(name, folder, graph, model, batches, notes, tolerance)
    example = batches['one'][0]
    for name, milliseconds in _latencies(callables, example, repetitions).items():
        forms.setdefault(name, {})['milliseconds'] = milliseconds
    return dict(
        student=dict(parameters=sum(parameter.numel() for parameter in model.parameters()), **notes),
        checked_on=dict(pictures=len(items), size=list(example.shape[2:]), tolerance=tolerance), forms=forms,
        timed=dict(batch=1, repetitions=repetitions, threads=torch.get_num_threads(), processor=_processor(),
                   load_average=os.getloadavg()[0]),
        versions=_versions(formats))


def _check_plain(cfg: Config, config: Path, weights: Path, model: nn.Module, items: list[dict]) -> dict:
    """Load the plain form by its library's own function and compare its inference with the trained student's."""
    if cfg.get('default_scope', 'mmseg') == 'mmpretrain':
        from mmpretrain.apis import get_model
        loaded = get_model(str(config), pretrained=str(weights), device='cpu')
    else:
        from mmseg.apis import init_model
        loaded = init_model(str(config), str(weights), device='cpu')
    pairs = [tuple(_prediction(each, item) for each in (model, loaded.eval())) for item in items]
    found = difference(pairs)
    refuse('the plain form', found, 0.)
    return found


def _prediction(model: nn.Module, item: dict) -> Tensor:
    """What a model's own inference gives for a picture: (1, C, H, W) logits, or (1, C) probabilities."""
    with torch.no_grad():
        result, = model.test_step(dict(inputs=[item['inputs']], data_samples=[copy.deepcopy(item['data_samples'])]))
    found = result.seg_logits.data if hasattr(result, 'seg_logits') else result.pred_score
    return found[None]


def _batches(model: nn.Module, items: list[dict]) -> dict[str, list[Tensor]]:
    """Pictures as the graph takes them: one by one (``one``), two at once, and of another size.

    A batch is (N, 3, H, W), RGB, 0 to 255; the first picture sets the size, at which the model's padding leaves it.
    """
    size = normalized(model, items[0]['inputs']).shape[2:]
    other = [size[0] + 32, size[1] + 64]
    pictures = [item['inputs'].flip(0)[None].float() for item in items]
    one = [_resized(picture, size) for picture in pictures]
    return dict(one=one, two=[torch.cat([one[0], one[-1].flip(3)])], other=[_resized(one[0], other)])


def _resized(picture: Tensor, size: Sequence[int]) -> Tensor:
    if list(picture.shape[2:]) == list(size):
        return picture
    return F.interpolate(picture, tuple(size), mode='bilinear', align_corners=False).round()


def _expected(model: nn.Module, batch: Tensor) -> Tensor:
    """The trained student's logits, through its own preprocessor."""
    with torch.no_grad():
        inputs = model.data_preprocessor(dict(inputs=list(batch.flip(1))), training=False)['inputs']
        return logits_of(model, inputs)


def _write_format(name: str, folder: Path, graph: nn.Module, model: nn.Module, batches: dict, notes: dict,
                  tolerance: float) -> tuple[dict, Callable]:
    """Write one format, as free in its sizes as gives the student's logits, and say what was not possible."""
    file, save, load = FORMATS[name]
    path, refused = folder / file, []
    for dynamic in _FREEDOM:
        wanted = batches['one'] + (batches['two'] if 0 in dynamic else []) + (batches['other'] if dynamic[1:] else [])
        example = batches['two' if 0 in dynamic else 'one'][0]
        try:
            save(graph, example, dynamic, path, notes)
            run = load(path)
            with torch.no_grad():
                found = [difference([(_expected(model, batch), run(batch))]) for batch in wanted]
            for each in found:
                refuse(f'`{name}`', each, tolerance)
        except Exception as error:  # each exporter and runtime has its own kinds
            path.unlink(missing_ok=True)
            refused.append(dict(dynamic=_words(dynamic), reason=str(error).strip()[:500] or repr(error)))
            if not dynamic:
                raise ValueError(f'`{name}`: no form of it computes what the trained student does, nothing was left. '
                                 f'The last attempt, with fixed sizes: {error}') from error
            continue
        return dict(file=file, bytes=path.stat().st_size, dynamic=_words(dynamic), refused=refused,
                    differences=found), run
    raise AssertionError('the last attempt returns or raises')


def _words(dynamic: tuple[int, ...]) -> list[str]:
    return [{0: 'batch', 2: 'height', 3: 'width'}[axis] for axis in dynamic]


def _latencies(callables: dict[str, Callable], example: Tensor, repetitions: int) -> dict[str, float]:
    """Median milliseconds of each; they take turns, so that whatever else the machine does hits them alike."""
    times = {name: [] for name in callables}
    with torch.no_grad():
        for index in range(repetitions + 2):
            for name, call in callables.items():
                start = time.perf_counter()
                call(example)
                if index >= 2:
                    times[name].append(1e3 * (time.perf_counter() - start))
    return {name: round(statistics.median(values), 3) for name, values in times.items()}


def _notes(model: nn.Module, graph: PictureToLogits, meta: dict, cfg: Config | None) -> dict:
    """What a user of the files must know, as JSON takes it."""
    classifier = not hasattr(model, 'encode_decode')
    notes = dict(
        input='float32 (batch, 3, height, width), RGB, 0 to 255; normalised inside',
        output='class logits (batch, classes)' if classifier else
               'class logits (batch, classes, height, width) at the size of the input',
        mean=None if graph.mean is None else graph.mean.flatten().tolist(),
        std=None if graph.std is None else graph.std.flatten().tolist(), classes=meta.get('classes'),
        palette=meta.get('palette'))
    test_cfg = dict(getattr(model, 'test_cfg', None) or {})
    if test_cfg.get('mode') == 'slide':
        notes['windows'] = ('the training config infers in sliding windows, which are outside: crop_size '
                            f'{test_cfg.get("crop_size")}, stride {test_cfg.get("stride")}')
    return notes


def _versions(formats: list[str]) -> dict:
    from importlib.metadata import version
    packages = ['torch', *(('onnx', 'onnxscript', 'onnxruntime') if 'onnx' in formats else ())]
    return dict(python=platform.python_version(), **{name: version(name) for name in packages})


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        return next(line.split(':')[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
