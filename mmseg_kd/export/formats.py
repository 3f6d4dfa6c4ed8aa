"""The file formats of an exported graph: how each is written, and how it is run again."""
import json
import logging
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ['FORMATS', 'INPUT', 'OUTPUT', 'check_installed']

INPUT, OUTPUT = 'image', 'logits'
_AXES = {0: 'batch', 2: 'height', 3: 'width'}


def check_installed(formats: list[str]) -> None:
    """Refuse formats whose packages are not there, before any work is done.

    Raises:
        ImportError: the extra is not installed; the message has the command.
        ValueError: there is no such format.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ValueError(f'`formats`: expected some of {sorted(FORMATS)}, got {unknown}.')
    if 'onnx' not in formats:
        return
    missing = [name for name in ('onnx', 'onnxscript', 'onnxruntime') if find_spec(name) is None]
    if missing:
        raise ImportError(f'`--onnx` needs the extra "export", of which {", ".join(missing)} '
                          f"{'is' if len(missing) == 1 else 'are'} not installed: pip install 'mmseg_kd[export]'")


def save_onnx(graph: nn.Module, example: Tensor, dynamic: tuple[int, ...], path: Path, notes: dict) -> None:
    """Write ONNX, with ``notes`` as the model's metadata."""
    import onnx
    program = _program(graph, example, dynamic)
    # Operators of torchvision that are not there are none that a model here could have.
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(program, (example, ), str(path), input_names=[INPUT], output_names=[OUTPUT], dynamo=True,
                          external_data=False, verbose=False)
    model = onnx.load(str(path))
    for shaped in (model.graph.input[0], model.graph.output[0]):
        sizes = shaped.type.tensor_type.shape.dim
        for axis in dynamic:
            if axis < len(sizes):
                sizes[axis].dim_param = _AXES[axis]
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in notes.items()})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def load_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    """Run ONNX by onnxruntime on the CPU, with as many threads as torch."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    return lambda image: torch.from_numpy(session.run([OUTPUT], {INPUT: image.numpy()})[0])


def save_torchscript(graph: nn.Module, example: Tensor, dynamic: tuple[int, ...], path: Path, notes: dict) -> None:
    """Write a trace for ``torch.jit.load``, with ``notes`` as the extra file ``notes.json``."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        traced = torch.jit.trace(graph, example, check_trace=False)
        torch.jit.save(traced, str(path), _extra_files={'notes.json': json.dumps(notes)})


def load_torchscript(path: Path) -> Callable[[Tensor], Tensor]:
    """Run a trace."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return torch.jit.load(str(path), map_location='cpu')


def save_program(graph: nn.Module, example: Tensor, dynamic: tuple[int, ...], path: Path, notes: dict) -> None:
    """Write a program of ``torch.export``, with ``notes`` as the extra file ``notes.json``."""
    torch.export.save(_program(graph, example, dynamic), str(path), extra_files={'notes.json': json.dumps(notes)})


def load_program(path: Path) -> Callable[[Tensor], Tensor]:
    """Run a program of ``torch.export``."""
    return torch.export.load(str(path)).module()


def _program(graph: nn.Module, example: Tensor, dynamic: tuple[int, ...]) -> torch.export.ExportedProgram:
    # What sizes a network takes (no map may shrink to nothing) torch finds out itself.
    sizes = {axis: torch.export.Dim.AUTO for axis in dynamic}
    with torch.no_grad():
        return torch.export.export(graph, (example, ), dynamic_shapes={INPUT: sizes or None})


#: Name to (file, how it is written, how it is run).
FORMATS = dict(
    onnx=('student.onnx', save_onnx, load_onnx),
    torchscript=('student.torchscript.pt', save_torchscript, load_torchscript),
    export=('student.pt2', save_program, load_program))
