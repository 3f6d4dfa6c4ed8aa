"""What can be wrong with the data sets of a config, whatever they are: as their pipelines load them."""
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, DefaultScope

from mmseg_kd.config_names import type_name

from .file_checks import PairCheck, label_problems, open_picture, printable
from .tree_check import SplitCheck, mapped

__all__ = ['check_config_data']

# What Pillow reads to the last byte; of other formats only the pipeline is asked.
_PICTURES = ('.png', '.jpg', '.jpeg', '.bmp')


def check_config_data(cfg: Config, workers: int = 1,
                      progress: Callable = lambda results, total, split: results) -> dict[str, SplitCheck]:
    """Check every sample of a config's segmentation data sets; nothing stops at the first problem.

    Files must be whole. Everything else is judged as the loading transforms of the config deliver it: pictures with
    four bands or 16 bits are right where they are loaded so, labels are those behind ``reduce_zero_label`` and class
    names that map labels.

    Args:
        cfg: A training config.
        workers: Processes that read.
        progress: As for :func:`~.tree_check.check_tree`.

    Returns:
        ``'train'``, ``'val'`` and ``'test'``, as far as the config has them and they differ, to what was found.

    Raises:
        ValueError: the config has no data set.
    """
    checks, seen = {}, []
    for split in ('train', 'val', 'test'):
        settings = (cfg.get(f'{split}_dataloader') or {}).get('dataset')
        if settings is None or settings in seen:
            continue
        seen.append(settings)
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmseg'):
            found = [DATASETS.build(each) for each in _that_load(settings)]
        checks[split] = check = SplitCheck()
        for dataset in found:
            check.pairs += len(dataset)
            if not len(dataset):
                check.problems.append(f'{printable(dataset.data_prefix)}: the data set is empty')
            with mapped(partial(_check, dataset), range(len(dataset)), workers) as results:
                for result in progress(results, len(dataset), split):
                    check.add(result)
    if not checks:
        raise ValueError('`config`: expected one with train_dataloader.dataset or val_dataloader.dataset, got the keys '
                         f'{sorted(cfg.keys())}.')
    return checks


def _that_load(settings: dict) -> Iterator[dict]:
    """The data sets inside of wrappers, each with only those transforms of its pipeline that load."""
    inner = settings.get('datasets') or [
        settings[key] for key in ('dataset', 'labelled') if isinstance(settings.get(key), dict)]
    if inner:
        for each in inner:
            yield from _that_load(each)
        return
    steps = [step for step in settings.get('pipeline') or () if type_name(step).rpartition('.')[2].startswith('Load')
             and type_name(step) != 'LoadTeacherLogits']
    yield dict(settings, pipeline=steps)


def _check(dataset: BaseDataset, index: int) -> PairCheck:
    found = PairCheck()
    info = dataset.get_data_info(index)
    files = [info.get(key) for key in ('img_path', 'seg_map_path')]
    for path in files:
        if isinstance(path, str) and '://' not in path and path.lower().endswith(_PICTURES):
            try:
                open_picture(path)
            except ValueError as error:
                found.problems.append(str(error))
    if found.problems:
        return found
    try:
        sample = dataset.pipeline(info)
    except Exception as error:
        found.problems.append(f'{printable(files[0])} with {printable(files[1])}: cannot be loaded '
                              f'({type(error).__name__}: {error})')
        return found
    image, labels = sample.get('img'), sample.get('gt_seg_map')
    if image is not None:
        found.size = tuple(image.shape[:2])
    if labels is None:
        return found
    if labels.ndim != 2:
        found.problems.append(f'{printable(files[1])}: is loaded as {labels.shape}, expected one label for each pixel, '
                              '(height, width)')
        return found
    if found.size is not None and labels.shape != found.size:
        found.problems.append(f'{printable(files[1])}: is {labels.shape[0]}x{labels.shape[1]}, its picture '
                              f'{found.size[0]}x{found.size[1]}')
    values, counts = np.unique(labels, return_counts=True)
    found.labels = Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    classes = dataset.metainfo.get('classes')
    found.problems += label_problems(files[1], found.labels, len(classes) if classes else None,
                                     getattr(dataset, 'ignore_index', 255))
    return found
