"""A teacher that somebody exported: a file of torch.export, TorchScript or ONNX."""
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export.passes import move_to_device_pass

from mmseg_kd.registry import import_with_extra
from mmseg_kd.safe_load import verify_sha256

from .guest import Teacher
from .host import Host
from .network import IMAGE_SETTINGS, guest_of, pick, read_image_format, refuse_unknown

__all__ = ['build_exported_teacher']

_SETTINGS = ('file', 'output', 'sha256', 'trusted', 'classes', *IMAGE_SETTINGS)


class FixedBatch(nn.Module):
    """A network without parameters of its own; it may take batches of one size only.

    Args:
        run: Computes the outputs of images (N, C, H, W).
        batch: The only N that it takes; None: any.
    """

    def __init__(self, run: Callable[[Tensor], object], batch: int | None = None):
        super().__init__()
        self._run = run
        self._batch = batch

    def forward(self, images: Tensor) -> object:
        """A tensor, or the outputs by name."""
        if self._batch is None:
            return self._run(images)
        found = []
        for first in range(0, len(images), self._batch):
            part = images[first:first + self._batch]
            found.append(self._run(torch.cat([part, part[-1:].expand(self._batch - len(part), *part.shape[1:])])))
        return _joined(found, len(images))


def build_exported_teacher(settings: dict, host: Host) -> Teacher:
    """Build the teacher of ``teacher=dict(type='exported', file=FILE, mean=..., std=...)``.

    A file of ``torch.export.save`` or ``torch.jit.save`` is a program, which may do whatever a program may: it is
    loaded only with ``trusted=True``. An ONNX file is computed by onnxruntime, on the CPU.

    Args:
        settings: ``file``; ``output`` says where the logits are, see :func:`~.network.pick` (outputs of ONNX by name);
            ``sha256`` is what the file must have. ``mean``, ``std``, ``scale``, ``rgb`` and ``size`` as in
            :func:`~.network.read_image_format`; the size is read from the file where it says one. ``classes`` are the
            names of its classes.
        host: What is known of the student.

    Raises:
        ValueError: no such file, one of another kind, or one that does not run.
        ImportError: an ONNX file, and the extra ``export`` is missing.
    """
    refuse_unknown(settings, _SETTINGS, 'exported')
    file = settings.get('file')
    path = Path(file).expanduser() if isinstance(file, str) else None
    if path is None or not path.is_file():
        raise ValueError(f'`teacher.file`: expected an existing file of torch.export, TorchScript or ONNX, got {file!r}'
                         f'{"" if path is None else f" (looked in {path.resolve()})"}.')
    if settings.get('sha256') is not None:
        verify_sha256(str(path), settings['sha256'], 'teacher.file')
    load = _loader(path)
    if load is not _onnx and settings.get('trusted') is not True:
        raise ValueError(f'`teacher.file`: {file!r} is a program, which can do anything that a program can, and is not '
                         'loaded from strangers. If you trust it, say so: trusted=True. An ONNX file needs no trust.')
    try:
        network, size = load(path)
    except ImportError:
        raise
    except Exception as error:
        raise ValueError(f'`teacher.file`: {file!r} could not be loaded ({type(error).__name__}: '
                         f'{str(error).strip().splitlines()[0] if str(error).strip() else ""}).') from error
    images = read_image_format(settings, {} if size is None else dict(size=size))
    output = settings.get('output')
    return guest_of(network, lambda value, size: pick(value, output), images, settings, host, 'teacher.file',
                    has_weights=True)


def _loader(path: Path) -> Callable[[Path], tuple[nn.Module, tuple[int, int] | None]]:
    if path.suffix == '.onnx':
        return _onnx
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any('/code/' in name for name in names):
            return _torchscript
        if any('exported_program' in name or name.endswith('archive_format') for name in names):
            return _program
    raise ValueError(f'`teacher.file`: {str(path)!r} is not a file of torch.export, TorchScript or ONNX (*.onnx). '
                     "Weights alone need a network: give that by `config`, or by type='module' and `checkpoint`.")


def _torchscript(path: Path) -> tuple[nn.Module, None]:
    return torch.jit.load(str(path), map_location='cpu'), None


def _program(path: Path) -> tuple[nn.Module, tuple[int, int] | None]:
    program = torch.export.load(str(path))
    modules: dict[torch.device, nn.Module] = {}

    def run(images: Tensor) -> object:
        if images.device not in modules:
            modules[images.device] = move_to_device_pass(program, images.device).module()
        return modules[images.device](images)

    wanted = program.graph_signature.user_inputs[0]
    shape = next(node.meta['val'].shape for node in program.graph.nodes if node.name == wanted)
    return _with_shape(run, [side if isinstance(side, int) else None for side in shape])


def _onnx(path: Path) -> tuple[nn.Module, tuple[int, int] | None]:
    onnxruntime = import_with_extra('onnxruntime', 'export', "`teacher`: type='exported' with an ONNX file")
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    wanted, names = session.get_inputs()[0], [each.name for each in session.get_outputs()]
    dtype = torch.float16 if 'float16' in wanted.type else torch.float32

    def run(images: Tensor) -> object:
        values = session.run(names, {wanted.name: images.to('cpu', dtype).contiguous().numpy()})
        values = [torch.from_numpy(value).to(images.device) for value in values]
        return values[0] if len(values) == 1 else dict(zip(names, values, strict=True))

    return _with_shape(run, [side if isinstance(side, int) and side > 0 else None for side in wanted.shape])


def _with_shape(run: Callable[[Tensor], object],
                shape: list[int | None]) -> tuple[nn.Module, tuple[int, int] | None]:
    if len(shape) != 4:
        raise ValueError(f'expected an input (N, C, H, W), got one of {len(shape)} dimensions')
    return FixedBatch(run, shape[0]), None if None in shape[2:] else (shape[2], shape[3])


def _joined(parts: list, number: int) -> object:
    """Outputs of several batches, tensors alone or by name or in a row, as those of one of ``number`` images."""
    if isinstance(parts[0], dict):
        return {name: _joined([part[name] for part in parts], number) for name in parts[0]}
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)[:number]
    return [_joined(list(each), number) for each in zip(*parts, strict=True)]
