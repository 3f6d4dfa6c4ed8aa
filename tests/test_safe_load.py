"""Checkpoints are data: a pickle that wants to run code is refused, and a file is the one that was meant."""
import functools
import gzip
import hashlib
import http.server
import json
import os
import pickle
import struct
import threading
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.registry import PARAM_SCHEDULERS
from tiny import ROOT, command

from mmseg_kd.safe_load import download, load_without_code, verify_sha256
from mmseg_kd.teachers.weights import load_into, read_weights


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), 'w')


def test_code_does_not_run_unless_the_file_is_trusted(tmp_path, caplog):
    path, mark = str(tmp_path / 'evil.pth'), tmp_path / 'ran'
    torch.save(dict(state_dict={}, more=Evil(mark)), path)
    with pytest.raises(ValueError, match=r'`load_from`: .*evil.pth.* holds more than weights.*trust_checkpoints=True'):
        load_without_code(path, setting='load_from')
    assert not mark.exists()
    load_without_code(path, trusted=True)
    assert mark.exists()


@pytest.mark.parametrize('owner, name', [
    (os, 'system'), (HistoryBuffer, '__init__'), (torch, 'hub'), (OneCycleParamScheduler, '__init__')])
def test_getattr_reaches_the_statistics_of_a_log_and_nothing_else(tmp_path, owner, name):
    class Reach:
        def __reduce__(self):
            return getattr, (Named(), name)

    class Named:
        def __reduce__(self):
            return (HistoryBuffer, ()) if owner is HistoryBuffer else (np.dtype, ('f4',))

    class Kind:
        def __reduce__(self):
            return getattr, (OneCycleParamScheduler, name)

    path = str(tmp_path / 'reach.pth')
    torch.save(dict(more=Kind() if owner is OneCycleParamScheduler else Reach()), path)
    with pytest.raises(ValueError, match='getattr'):
        load_without_code(path)


def test_what_a_runner_saves_comes_back(tmp_path):
    buffer = HistoryBuffer()
    for value in (1., 2., 6.):
        buffer.update(value)
    saved = dict(state_dict=dict(a=torch.arange(3)), message_hub=dict(log=buffer), score=np.float64(0.5),
                 meta=dict(palette=np.array([[1, 2, 3]]), iter=7))
    torch.save(saved, tmp_path / 'run.pth')
    loaded = load_without_code(str(tmp_path / 'run.pth'))
    assert torch.equal(loaded['state_dict']['a'], saved['state_dict']['a']) and loaded['meta']['iter'] == 7
    assert loaded['message_hub']['log'].mean() == 3. and loaded['score'] == 0.5


@pytest.mark.parametrize('name, settings', [
    ('MultiStepLR', dict(milestones=[2, 4, 4])), ('StepLR', dict(step_size=2)), ('ExponentialLR', dict(gamma=.9)),
    ('CosineAnnealingLR', dict(T_max=5)), ('PolyLR', {}), ('LinearLR', {}), ('ConstantLR', {}),
    ('OneCycleLR', dict(eta_max=.1, total_steps=9)), ('OneCycleLR', dict(
        eta_max=.1, total_steps=9, anneal_strategy='linear')),
    ('CosineRestartLR', dict(periods=[2, 4], restart_weights=[1., .5], eta_min=0.)),
    ('MultiStepMomentum', dict(milestones=[4])),
    ('ReduceOnPlateauLR', dict(monitor='loss', patience=1))])
def test_every_schedule_goes_on_where_it_was(tmp_path, name, settings):
    """Read without code, against the schedule that nothing interrupted."""
    def step(optimizer, schedule):
        optimizer.step()
        schedule.step(*([dict(loss=1.)] if name.startswith('Reduce') else []))
        return [(group['lr'], group['momentum']) for group in optimizer.param_groups]

    def begin():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=.1, momentum=.9)
        return optimizer, PARAM_SCHEDULERS.build(dict(type=name, optimizer=optimizer, **settings))
    optimizer, schedule = begin()
    for _ in range(3):
        step(optimizer, schedule)
    torch.save(dict(optimizer=optimizer.state_dict(), param_schedulers=[schedule.state_dict()]), tmp_path / 'run.pth')
    loaded = load_without_code(str(tmp_path / 'run.pth'))
    resumed = begin()
    resumed[0].load_state_dict(loaded['optimizer'])
    resumed[1].load_state_dict(loaded['param_schedulers'][0])
    assert [step(optimizer, schedule) for _ in range(3)] == [step(*resumed) for _ in range(3)]


@pytest.mark.parametrize('content', [b'', b'no checkpoint', pickle.dumps(dict(a=1))[:-3]])
def test_files_that_are_no_checkpoints(tmp_path, content):
    (tmp_path / 'x.pth').write_bytes(content)
    with pytest.raises(ValueError, match='`resume`: .*x.pth'):
        load_without_code(str(tmp_path / 'x.pth'), setting='resume')
    with pytest.raises(ValueError, match='`resume`: expected an existing checkpoint file, got .*none.pth'):
        load_without_code(str(tmp_path / 'none.pth'), setting='resume')


def test_sha256(tmp_path):
    path = tmp_path / 'x.pth'
    path.write_bytes(b'abc')
    known = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'  # FIPS 180-2, appendix B.1
    for expected in (known, known.upper(), known[:8]):
        verify_sha256(str(path), expected)
    with pytest.raises(ValueError, match=f'`sha`: .*x.pth has the SHA-256 {known}, expected 0{known[1:]}'):
        verify_sha256(str(path), '0' + known[1:], 'sha')
    for expected in ('ba78', 'xyz' * 8, 7):
        with pytest.raises(ValueError, match='`sha`: expected 8 to 64 hexadecimal digits'):
            verify_sha256(str(path), expected, 'sha')


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder and the URL under which it is served."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    folder = tmp_path / 'served'
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


def test_a_url_is_checked_by_the_hash_in_its_name_or_by_the_one_given(served):
    folder, url = served
    digest = hashlib.sha256(b'abc').hexdigest()
    wrong = '0' * 8
    for name in ('plain-r18-d8.pth', f'right-{digest[:8]}.pth', f'wrong-{wrong}.pth'):
        (folder / name).write_bytes(b'abc')
    assert open(download(f'{url}/plain-r18-d8.pth'), 'rb').read() == b'abc'
    assert download(f'{url}/plain-r18-d8.pth', sha256=digest)
    with pytest.raises(ValueError, match='has the SHA-256'):
        download(f'{url}/plain-r18-d8.pth', sha256=wrong)
    assert download(f'{url}/right-{digest[:8]}.pth')
    with pytest.raises(ValueError, match='has the SHA-256'):
        download(f'{url}/wrong-{wrong}.pth')
    with pytest.raises(ValueError, match='has the SHA-256'):  # in the cache now, and still another file
        download(f'{url}/wrong-{wrong}.pth')
    assert download(f'{url}/wrong-{wrong}.pth', sha256=digest)  # what is said outweighs a name


def test_thousands_of_damaged_checkpoints_neither_crash_nor_run(tmp_path):
    process = command('tests/mutated_checkpoints.py', tmp_path, 2500, PYTHONPATH=f'{ROOT}:{ROOT}/tests', check=False)
    # A negative status is a signal: SIGSEGV, SIGABRT, or the end of memory.
    assert process.returncode == 0, process.stdout[-2000:]
    ends = json.loads(process.stdout.strip().splitlines()[-1])
    assert not ends['other'] and ends['refused'] + ends['read'] == 2500
    # Damage that hits a number or a name leaves a checkpoint that can be read.
    assert ends['refused'] > 1000 and ends['read'] > 100


def saved(path, content, **settings):
    torch.save(content, path, **settings)
    return str(path)


@pytest.mark.parametrize('settings', [
    {}, dict(_use_new_zipfile_serialization=False), dict(pickle_protocol=4), dict(pickle_protocol=5)], ids=str)
def test_what_torch_reads_is_read(tmp_path, settings):
    """Every kind of tensor that a network has, against torch's own reader."""
    shared = torch.arange(24.)
    content = dict(
        **{str(dtype): torch.arange(6).to(dtype) for dtype in (
            torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
            torch.uint8, torch.bool, torch.complex64)},
        whole=shared, part=shared[4:10], turned=shared.view(4, 6).t(), empty=torch.empty(0, 3), number=torch.tensor(7.),
        parameter=torch.nn.Parameter(torch.ones(2)), expanded=torch.ones(1).expand(5), size=torch.Size([2, 3]),
        words=['a', ('b', {'c'}), {1: None, 'k': True}, b'bytes', -5, 2**40, 1.5, 2**70], device=torch.device('cpu'),
        dtype=torch.float32, array=np.arange(6.).reshape(2, 3), turned_array=np.arange(6).reshape(2, 3).T,
        half=np.float16(1.5), yes=np.bool_(True), ordered=torch.nn.BatchNorm1d(2).state_dict())
    path = saved(tmp_path / 'x.pth', content, **settings)
    found, expected = load_without_code(path), torch.load(path, weights_only=False)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(found[key], value) and found[key].dtype == value.dtype, key
            assert type(found[key]) is type(value) and found[key].requires_grad == value.requires_grad
        elif isinstance(value, np.ndarray):
            assert (found[key] == value).all() and found[key].dtype == value.dtype
        elif key == 'ordered':
            assert found[key].keys() == value.keys() and found[key]._metadata == value._metadata
        else:
            assert found[key] == value, key
    # One memory stays one.
    found['whole'][4] = 100.
    assert found['part'][0] == 100. and found['turned'][4, 0] == 100.


class Chosen:
    """A NumPy array whose bytes are taken for addresses of Python objects."""

    def __init__(self, kind='O8', state=(3, '|', None, None, None, -1, -1, 63)):
        self.kind, self.state = kind, state

    def __reduce__(self):
        return np._core.multiarray._reconstruct, (np.ndarray, (0, ), b'b'), (
            1, (1, ), Dtype(self.kind, self.state), False, b'\x41' * 8)


class Dtype:
    def __init__(self, kind, state):
        self.kind, self.state = kind, state

    def __reduce__(self):
        return np.dtype, (self.kind, False, True), self.state


@pytest.mark.parametrize('array', [
    Chosen(), Chosen('f8', (3, '|', None, None, None, -1, -1, 63)), Chosen('V8', (3, '|', None, None, None, 8, 1, 0)),
    Chosen('f8', (3, '<', (np.dtype('O'), (1, )), None, None, -1, -1, 0)), np.array(['text']),
    np.array([object], dtype=object)], ids=['object', 'flags', 'void', 'subarray', 'text', 'real objects'])
def test_only_numbers_are_arrays(tmp_path, array):
    with pytest.raises(ValueError, match='holds more than weights'):
        load_without_code(saved(tmp_path / 'x.pth', dict(a=array)))


class Wrong:
    """A tensor that reads beyond its memory."""

    def __init__(self, offset=0, size=(2, ), stride=(1, )):
        self.arguments = offset, size, stride

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (torch.zeros(4)._typed_storage(), *self.arguments, False, {})


@pytest.mark.parametrize('tensor', [
    Wrong(offset=3), Wrong(size=(5, )), Wrong(stride=(4, )), Wrong(offset=-1), Wrong(size=(2, 2), stride=(1, )),
    Wrong(size=(2**40, ), stride=(0, )), Wrong(size=(2**62, 8), stride=(1, 1))])
def test_a_tensor_stays_in_its_memory(tmp_path, tensor):
    with pytest.raises(ValueError, match='damaged checkpoint'):
        load_without_code(saved(tmp_path / 'x.pth', dict(a=tensor)))


def test_every_flipped_byte_of_the_numbers_is_found(tmp_path):
    path = tmp_path / 'x.pth'
    torch.save(dict(a=torch.arange(64.)), path)
    content = bytearray(path.read_bytes())
    at = content.find(torch.arange(64.).numpy().tobytes())
    content[at + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match='damaged checkpoint .*Bad CRC-32.*Copy or download it again'):
        load_without_code(str(path))
    torch.serialization.set_crc32_options(False)  # torch can leave the checksums out; then there is none to compare
    try:
        torch.save(dict(a=torch.arange(64.)), path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert load_without_code(str(path))['a'][63] == 63.


def test_sizes_are_looked_at_before_anything_is_unpacked(tmp_path):
    """4 GiB of zeros take 4 MB in a zip archive."""
    path = tmp_path / 'x.pth'
    torch.save(dict(a=torch.zeros(8)), path)
    bomb = tmp_path / 'bomb.pth'
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(bomb, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as new:
        for entry in old.infolist():
            if not entry.filename.endswith('data/0'):
                new.writestr(entry.filename, old.read(entry))
            else:
                with new.open(entry.filename, 'w', force_zip64=True) as file:
                    for _ in range(200):
                        file.write(bytes(1 << 20))
    with pytest.raises(ValueError, match=r'would take 210 MB of memory, the file has \d\.\d+ MB; it was not unpacked'):
        load_without_code(str(bomb))


FILES = {
    'empty': (b'', 'an empty file'),
    'zeros': (bytes(5000), '5000 zero bytes'),
    'page': (b'<!DOCTYPE html><html><head><title>404 Not Found</title>', r"a web page \('404 Not Found'\)"),
    'lfs': (b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n', 'a Git LFS pointer'),
    'text': (b'404: Not Found', r"text \('404: Not Found'\)"),
    'json': (b'{"error": "Access denied"}', r"""JSON \('{"error": "Access denied"}'\)"""),
    'xml': (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', 'an XML document'),
    'gzip': (gzip.compress(b'x'), 'a gzip archive'),
    'png': (b'\x89PNG\r\n\x1a\n' + bytes(20), 'a PNG picture'),
    'pickle': (pickle.dumps(dict(a=1)), 'a pickle'),
    'npy': (b'\x93NUMPY\x01\x00' + bytes(30), 'a NumPy array'),
    'noise': (bytes(range(128, 256)) * 3, '384 bytes of an unknown format'),
    'zip': (b'', 'a zip archive of 1 other files'),
    'script': (b'', 'a TorchScript archive'),
    'truncated': (b'', 'a zip archive without its end'),
}


@pytest.mark.parametrize('name', FILES)
def test_the_message_says_what_the_file_is(tmp_path, name):
    content, words = FILES[name]
    path = tmp_path / 'x.pth'
    path.write_bytes(content)
    if name == 'zip':
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('a.txt', 'a')
    elif name == 'script':
        torch.jit.script(torch.nn.ReLU()).save(str(path))
    elif name == 'truncated':
        torch.save(dict(a=torch.zeros(1000)), path)
        path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=f'`load_from`: expected a checkpoint .*x.pth. is {words}') as error:
        load_without_code(str(path), setting='load_from')
    assert 'weights_only' not in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('checkpoint, message', [
    (dict(state_dict={1: torch.zeros(2)}), 'keys that are not names, such as 1'),
    (dict(state_dict=[torch.zeros(2)]), 'the `state_dict` of .* is a list'),
    (dict(state_dict='x'), 'the `state_dict` of .* is a str'),
    ([1, 2], 'holds no state dict .*but a list'),
    (dict(a=1, b=2), "holds no state dict .*but a dict with 'a', 'b'"),
    (7, 'holds no state dict .*but a int'),
    (dict(w=torch.zeros(2).to_sparse()), 'it holds a sparse tensor .*which is not a weight'),
    (dict(w=torch.zeros(2, device='meta')), 'it holds a tensor without values'),
    (dict(w=torch.quantize_per_tensor(torch.zeros(2), 1., 0, torch.qint8)), 'quantised|QInt8Storage')])
def test_what_is_no_state_dict(tmp_path, checkpoint, message):
    with pytest.raises(ValueError, match=f'`teacher.checkpoint`: .*{message}'):
        read_weights(saved(tmp_path / 'x.pth', checkpoint))


@pytest.mark.parametrize('dtype', [torch.int64, torch.bool, torch.complex64])
def test_weights_of_another_kind_of_numbers(dtype):
    model = torch.nn.Linear(2, 2)
    weights = model.state_dict() | dict(weight=torch.ones(2, 2, dtype=dtype))
    with pytest.raises(ValueError, match=f'1 have numbers of another kind .weight: checkpoint {dtype}, model torch.fl'):
        load_into(model, weights, 'teacher.checkpoint', 'x.pth', 'teacher.config')
    # Another precision is none.
    load_into(model, {name: value.half() for name, value in model.state_dict().items()}, 'a', 'b', 'c')


def safetensors_file(path, header, content):
    """The format by hand: the length of the header, the header, the numbers."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(text)) + text + content)
    return str(path)


def test_safetensors(tmp_path):
    numbers = np.array([[1, 2, 3], [4, 5, 6]], '<f4')
    header = {'__metadata__': dict(format='pt'), 'w': dict(dtype='F32', shape=[2, 3], data_offsets=[0, 24]),
              'n': dict(dtype='I64', shape=[], data_offsets=[24, 32]), 'e': dict(dtype='BF16', shape=[0, 2],
                                                                                data_offsets=[32, 32])}
    path = safetensors_file(tmp_path / 'model.safetensors', header, numbers.tobytes() + struct.pack('<q', -7))
    for name in ('model.safetensors', 'model.pth'):  # the content decides
        os.rename(path, tmp_path / name)
        path = tmp_path / name
        weights = read_weights(str(path))
        assert sorted(weights) == ['e', 'n', 'w'] and weights['e'].shape == (0, 2)
        assert weights['w'].tolist() == numbers.tolist() and weights['n'].item() == -7


@pytest.mark.parametrize('entry, content', [
    (dict(dtype='F32', shape=[2], data_offsets=[0, 8]), bytes(4)),
    (dict(dtype='F32', shape=[2], data_offsets=[0, 4]), bytes(4)),
    (dict(dtype='F32', shape=[-1], data_offsets=[0, 4]), bytes(4)),
    (dict(dtype='X9', shape=[1], data_offsets=[0, 4]), bytes(4)),
    (dict(dtype='F32', shape=[1], data_offsets=[4, 8]), bytes(8)), (dict(shape=[1]), bytes(4)), ([], bytes(4)),
    (dict(dtype='F32', shape=[1], data_offsets=[0, 4]), bytes(9)),
    (dict(dtype='F32', shape=[2**62], data_offsets=[0, 2**64]), b'')])
def test_damaged_safetensors(tmp_path, entry, content):
    path = safetensors_file(tmp_path / 'x.safetensors', dict(w=entry), content)
    with pytest.raises(ValueError, match='x.safetensors'):
        load_without_code(path)


def test_a_missing_page_is_said(served):
    _, url = served
    with pytest.raises(ValueError, match='`teacher.checkpoint`: .*none.pth cannot be downloaded: the server says 404'):
        read_weights(f'{url}/none.pth')
