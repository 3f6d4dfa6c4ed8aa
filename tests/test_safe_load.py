"""Checkpoints are data: a pickle that wants to run code is refused, and a file is the one that was meant."""
import functools
import hashlib
import http.server
import os
import pickle
import threading

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmseg_kd.safe_load import download, load_without_code, verify_sha256


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


@pytest.mark.parametrize('owner, name', [(os, 'system'), (HistoryBuffer, '__init__'), (torch, 'hub')])
def test_getattr_reaches_the_statistics_of_a_log_and_nothing_else(tmp_path, owner, name):
    class Reach:
        def __reduce__(self):
            return getattr, (Named(), name)

    class Named:
        def __reduce__(self):
            return (HistoryBuffer, ()) if owner is HistoryBuffer else (np.dtype, ('f4',))

    path = str(tmp_path / 'reach.pth')
    torch.save(dict(more=Reach()), path)
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
