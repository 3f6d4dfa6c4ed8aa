"""Reads checkpoints with random damage, thousands of them; test_safe_load.py starts it.

    python mutated_checkpoints.py FOLDER COUNT

Prints as JSON how many were refused by a ValueError, how many were read, and every other end. A crash ends the process.
"""
import io
import json
import random
import sys
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from mmseg_kd.safe_load import load_without_code

NAMES = ['torch._utils _rebuild_tensor_v2', 'torch._utils _rebuild_parameter', 'torch FloatStorage', 'numpy dtype',
         'numpy._core.multiarray _reconstruct', 'numpy._core.multiarray scalar', 'numpy ndarray', 'builtins getattr',
         'os system', 'builtins eval', 'posix system', 'collections OrderedDict', 'torch.storage UntypedStorage',
         'torch._utils _rebuild_sparse_tensor', 'mmengine.logging.history_buffer HistoryBuffer']


def checkpoint():
    """What a Runner saves, in small."""
    log = HistoryBuffer()
    for value in range(5):
        log.update(float(value))
    weights = OrderedDict((f'layer{i}.weight', torch.randn(3, 4)) for i in range(3))
    weights._metadata = OrderedDict({'': dict(version=2)})
    momentum = {i: dict(step=3, momentum_buffer=torch.randn(3, 4)) for i in range(3)}
    return dict(state_dict=weights, optimizer=dict(state=momentum, param_groups=[dict(lr=0.1, params=[0, 1, 2])]),
                message_hub=dict(log_scalars=dict(loss=log), runtime_info=dict(best=np.float64(0.5))),
                meta=dict(iter=3, epoch=0, palette=np.arange(6, dtype=np.uint8).reshape(2, 3)))


def saved(legacy):
    file = io.BytesIO()
    torch.save(checkpoint(), file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def damaged(content, chance):
    """The bytes with a few of them changed, removed, doubled, or a name put in the place of another."""
    content = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(content))
        kind = chance.random()
        if kind < 0.5:
            content[at] = chance.choice((chance.randrange(256), content[at] ^ (1 << chance.randrange(8)), 0, 255))
        elif kind < 0.65:
            del content[at:at + chance.randrange(1, 9)]
        elif kind < 0.8:
            content[at:at] = content[at:at + chance.randrange(1, 30)]
        else:
            name = chance.choice(NAMES).replace(' ', '\n').encode()
            begin = content.find(b'c', at)
            first = content.find(b'\n', begin)
            end = content.find(b'\n', first + 1)
            if begin >= 0 and end > 0 and end - begin < 80:
                content[begin + 1:end] = name
    return bytes(content)


def with_pickle(archive, pickle):
    """A zip checkpoint with another pickle, whose checksums are right."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(file, 'w') as new:
        for entry in old.infolist():
            new.writestr(entry.filename, pickle if entry.filename.endswith('data.pkl') else old.read(entry))
    return file.getvalue()


def main():
    folder, count = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    archive, legacy = saved(False), saved(True)
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        pickle = opened.read(next(name for name in opened.namelist() if name.endswith('data.pkl')))
    chance, ends, other = random.Random(0), Counter(), []
    for number in range(count):
        # Most of them where a pickle's instructions are; a plain flip in an archive is found by its checksum.
        content = (damaged(legacy, chance) if number % 4 == 0 else damaged(archive, chance) if number % 4 == 1 else
                   with_pickle(archive, damaged(pickle, chance)))
        path = f'{folder}/mutated.pth'
        with open(path, 'wb') as file:
            file.write(content)
        try:
            load_without_code(path)
            ends['read'] += 1
        except ValueError as error:
            assert path in str(error)
            ends['refused'] += 1
        except BaseException as error:
            other.append(f'{number}: {error!r}')
    print(json.dumps(dict(ends, other=other[:10])))


if __name__ == '__main__':
    main()
