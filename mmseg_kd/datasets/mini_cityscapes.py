"""Mini-Cityscapes: procedural street scenes on disk, laid out and named exactly as Cityscapes."""
import json
import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from cityscapesscripts.helpers.labels import id2label
from tqdm import tqdm

from .scene import LEAST_SIZE, draw_scene

# Goes up whenever the same settings draw other pixels, so that an old directory is not taken for a new one.
VERSION = 2
MANIFEST = 'mini_cityscapes.json'
# Invented names, so that nobody takes a file for a real Cityscapes picture. Other cities in every split, as there.
CITIES = {
    'train': ('aldenau', 'birkstadt', 'cronfeld', 'dornburg'),
    'val': ('elmhafen', 'falkenau', 'gruental'),
    'test': ('hohenried', 'ilmwerder'),
}
_SUFFIXES = ('labelIds', 'labelTrainIds', 'instanceIds', 'color')


def file_stem(split, index):
    """``{city}/{city}_{sequence:06d}_{frame:06d}`` of picture ``index``; it does not depend on how many there are."""
    cities = CITIES[split]
    city, sequence = cities[index % len(cities)], index // len(cities)
    return f'{city}/{city}_{sequence:06d}_000019'


def annotations(ids):
    """The four annotation pictures of Cityscapes from one map.

    Args:
        ids: uint16 (H, W) instance ids: ``labelId * 1000 + n`` for things, ``labelId`` for the rest.

    Returns:
        dict from 'labelIds', 'labelTrainIds' (uint8 (H, W)), 'instanceIds' (uint16 (H, W)) and 'color'
        (uint8 RGBA (H, W, 4)) to arrays.
    """
    label_ids = np.where(ids >= 1000, ids // 1000, ids).astype(np.uint8)
    train_ids, colors = np.zeros(256, np.uint8), np.zeros((256, 4), np.uint8)
    for number, label in id2label.items():
        if number >= 0:
            train_ids[number] = label.trainId
            colors[number] = (*label.color, 255)
    return dict(labelIds=label_ids, labelTrainIds=train_ids[label_ids], instanceIds=ids, color=colors[label_ids])


def generate_mini_cityscapes(out_dir, num_train=240, num_val=60, num_test=0, size=(64, 128), seed=0, workers=1):
    """Writes ``out_dir/leftImg8bit`` and ``out_dir/gtFine`` with procedural street scenes.

    A picture depends only on (seed, split, index, size): neither the number of workers nor the number of pictures
    changes it. Every split of at least 8 pictures shows all 19 training classes and void. The directory appears whole
    or not at all; where it already holds the same generation, nothing is done.

    Args:
        out_dir: Directory to make; may exist empty.
        num_train, num_val, num_test: Pictures per split.
        size: (height, width) in pixels.
        seed: Non-negative int.
        workers: Processes that draw; 1 draws in this one.

    Returns:
        Path of ``out_dir``.

    Raises:
        ValueError: A setting is out of range, or ``out_dir`` holds something else.
    """
    out_dir = Path(out_dir)
    counts = dict(train=num_train, val=num_val, test=num_test)
    _check(counts, size, seed, workers)
    settings = dict(version=VERSION, seed=seed, size=list(size), counts=counts)
    if _already_there(out_dir, settings):
        return out_dir

    # Same parent, hence same file system: the rename at the end is atomic.
    partial = out_dir.absolute().with_name(f'.{out_dir.absolute().name}.partial{os.getpid()}')
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        tasks = [(str(partial), seed, split, index, tuple(size)) for split, n in counts.items() for index in range(n)]
        for task in tasks:
            for kind in ('leftImg8bit', 'gtFine'):
                (partial / kind / task[2] / file_stem(task[2], task[3])).parent.mkdir(parents=True, exist_ok=True)
        title = f'mini-Cityscapes {size[0]}x{size[1]}'
        # disable=None: no bar where the output is not a terminal.
        for _ in tqdm(_run(tasks, workers), total=len(tasks), desc=title, disable=None):
            pass
        (partial / MANIFEST).write_text(json.dumps(settings, indent=2) + '\n')
        if out_dir.exists():
            out_dir.rmdir()
        partial.rename(out_dir)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return out_dir


def _check(counts, size, seed, workers):
    for split, count in counts.items():
        if count < 0:
            raise ValueError(f'num_{split} must not be negative, got {count}')
    if sum(counts.values()) == 0:
        raise ValueError('num_train, num_val and num_test are all 0: ask for at least one picture')
    if len(size) != 2 or size[0] < LEAST_SIZE[0] or size[1] < LEAST_SIZE[1]:
        raise ValueError(f'size must be height and width, at least {LEAST_SIZE[0]} {LEAST_SIZE[1]}, got {tuple(size)}')
    if seed < 0:
        raise ValueError(f'seed must not be negative, got {seed}')
    if workers < 1:
        raise ValueError(f'workers must be at least 1, got {workers}')


def _already_there(out_dir, settings):
    """Whether ``out_dir`` holds exactly this generation; raises where it holds anything else."""
    if not out_dir.exists():
        return False
    way_out = 'choose another out_dir, or delete this one'
    if not out_dir.is_dir():
        raise ValueError(f'out_dir {out_dir} is a file: {way_out}')
    if not any(out_dir.iterdir()):
        return False
    manifest = out_dir / MANIFEST
    if not manifest.is_file():
        raise ValueError(f'out_dir {out_dir} is not empty and was not made by this generator: {way_out}')
    try:
        found = json.loads(manifest.read_text())
    except json.JSONDecodeError:
        raise ValueError(f'out_dir {out_dir}: {MANIFEST} is damaged: {way_out}') from None
    if found != settings:
        raise ValueError(f'out_dir {out_dir} was made with other settings ({found}; asked for {settings}): {way_out}')
    for split, count in settings['counts'].items():
        for kind, files in (('leftImg8bit', 1), ('gtFine', len(_SUFFIXES))):
            present = sum(1 for _ in (out_dir / kind / split).glob('*/*.png'))
            if present != count * files:
                raise ValueError(f'out_dir {out_dir}: {kind}/{split} has {present} of {count * files} files: {way_out}')
    return True


def _run(tasks, workers):
    if workers == 1:
        yield from map(_write_one, tasks)
        return
    # Fork where there is fork: a fresh interpreter would spend longer on imports than on the pictures.
    method = 'fork' if 'fork' in multiprocessing.get_all_start_methods() else 'spawn'
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        try:
            yield from pool.map(_write_one, tasks, chunksize=4)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _write_one(task):
    root, seed, split, index, size = task
    image, ids = draw_scene(seed, split, index, size)
    stem = file_stem(split, index)
    _write(Path(root, 'leftImg8bit', split, f'{stem}_leftImg8bit.png'), image[..., ::-1])
    for name, array in annotations(ids).items():
        if name == 'color':
            array = array[..., [2, 1, 0, 3]]
        _write(Path(root, 'gtFine', split, f'{stem}_gtFine_{name}.png'), array)


def _write(path, array):
    # cv2.imwrite says no by its return value and does not take every path on every system.
    done, data = cv2.imencode('.png', np.ascontiguousarray(array))
    assert done, path
    path.write_bytes(data.tobytes())
