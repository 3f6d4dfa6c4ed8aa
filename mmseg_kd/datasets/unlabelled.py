"""Pictures without labels, by themselves and beside a labelled data set."""
import copy
import logging
import os.path as osp
from collections.abc import Callable, Collection, Sequence

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmengine.registry import DATASETS as ROOT_DATASETS
from torch.utils.data import ConcatDataset

from mmseg_kd.config_names import type_name
from mmseg_kd.registry import DATASETS

from .picture_files import check_pictures, listed_pictures, pictures_below

__all__ = ['UnlabelledDataset', 'WithUnlabelled', 'pictures_of', 'pipeline_of', 'without_labels']


class NoLabels:
    """Stands in a pipeline where labels were loaded: every pixel has the label that is ignored.

    So every transform that reads or moves a label map works as it is.

    Args:
        ignore_index: The ignored label, below 256.
    """

    def __init__(self, ignore_index: int = 255):
        self.ignore_index = ignore_index

    def __call__(self, results: dict) -> dict:
        results['gt_seg_map'] = np.full(results['img'].shape[:2], self.ignore_index, np.uint8)
        results['seg_fields'] = [*results.get('seg_fields', []), 'gt_seg_map']
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(ignore_index={self.ignore_index})'


def without_labels(pipeline: Sequence[dict | Callable], ignore_index: int = 255) -> list[dict | Callable]:
    """A training pipeline for pictures without labels.

    Loaders of annotations are left out, and :class:`NoLabels` comes before the first transform that loads nothing.
    ``RandomCrop`` looks for no crop of several classes (``cat_max_ratio``), since every crop looks alike to it.

    Args:
        pipeline: As in a config.
        ignore_index: The ignored label.
    """
    kept = [_label_free(transform) for transform in pipeline if not _loads_labels(transform)]
    first = next((index for index, transform in enumerate(kept) if not _name(transform).startswith('Load')), len(kept))
    return [*kept[:first], NoLabels(ignore_index), *kept[first:]]


def _name(transform: dict | Callable) -> str:
    return type_name(transform if isinstance(transform, dict) else type(transform)).rpartition('.')[2]


def _loads_labels(transform: dict | Callable) -> bool:
    return _name(transform).startswith('Load') and 'Annotation' in _name(transform)


def _label_free(setting):
    """A copy of a transform (or of what is inside one) that has no use for labels."""
    if isinstance(setting, dict):
        setting = {key: _label_free(value) for key, value in setting.items()}
        if 'cat_max_ratio' in setting:
            setting['cat_max_ratio'] = 1.
    elif isinstance(setting, (list, tuple)):
        setting = type(setting)(_label_free(value) for value in setting)
    return setting


def pipeline_of(dataset: dict) -> list | None:
    """The pipeline in the config of a data set, perhaps repeated or concatenated; None where it has none of its own.

    A pipeline that mixes pictures (``MultiImageMixDataset``) is not one picture's.
    """
    while isinstance(dataset, dict) and _name(dataset) != 'MultiImageMixDataset':
        if dataset.get('pipeline') is not None:
            return list(dataset['pipeline'])
        dataset = dataset.get('dataset') or dataset.get('labelled') or next(iter(dataset.get('datasets') or ()), None)
    return None


def pictures_of(dataset: dict, pipeline: Sequence[dict]) -> dict:
    """The config of a data set as a set of pictures, each once and through another pipeline, for a teacher to look at.

    Args:
        dataset: The config of a training set, perhaps repeated, concatenated, or with unlabelled pictures.
        pipeline: What loads a picture and packs it.
    """
    while isinstance(dataset.get('dataset'), dict):  # repeated, and the like
        dataset = dataset['dataset']
    dataset = dict(copy.deepcopy(dict(dataset)))
    if 'labelled' in dataset:
        dataset['labelled'] = pictures_of(dataset['labelled'], pipeline)
        dataset['unlabelled'] = {**dataset['unlabelled'], 'pipeline': list(pipeline)}
    elif 'datasets' in dataset:
        dataset['datasets'] = [pictures_of(each, pipeline) for each in dataset['datasets']]
    else:
        dataset['pipeline'] = list(pipeline)
    return dataset


@DATASETS.register_module()
class UnlabelledDataset(BaseDataset):
    """A folder of pictures, or a list of them, for a teacher to speak about.

    The samples are as those of mmseg's data sets, so that they fit into one batch. Their label map holds the ignored
    label everywhere and their metainfo says ``unlabelled=True``; by that our models know them. Other models see
    pictures with no valid pixel.

    Args:
        data_root: A folder. Pictures are found at any depth and whatever they are called: files that end like a
            picture must be one, others are taken if they begin like one.
        files: The pictures one by one, instead of all in the folder: paths, or a text file with one path a line.
            Relative ones are below ``data_root``.
        pipeline: The student's training pipeline; what loads labels is left out of it (see :func:`without_labels`).
        leave_out: Pictures that are not taken, for instance those that have labels.
        ignore_index: The ignored label.
        metainfo: As of any data set: ``classes`` and ``palette``, for a run that has no labelled data set.
        **kwargs: Other arguments of mmengine's ``BaseDataset`` (``indices``, ``serialize_data``, ``lazy_init``).

    Raises:
        ValueError: there is no such folder or file, no picture is left, or a file is not a picture.
    """

    def __init__(self, data_root: str | None = None, files: str | Sequence[str] | None = None,
                 pipeline: Sequence[dict | Callable] = (), leave_out: Collection[str] = (), ignore_index: int = 255,
                 metainfo: dict | None = None, **kwargs):
        if not data_root and files is None:
            raise ValueError('`unlabelled`: expected dict(data_root=FOLDER) or dict(files=[...]), got neither.')
        self.files = files
        self.ignore_index = ignore_index
        self._leave_out = frozenset(map(osp.realpath, leave_out))
        super().__init__(data_root=data_root, metainfo=metainfo,
                         pipeline=without_labels(pipeline, ignore_index), **kwargs)

    def _join_prefix(self) -> None:
        """Nothing: ``data_root`` is the folder itself."""

    def load_data_list(self) -> list[dict]:
        """One entry a picture, sorted by path where they come from a folder."""
        if self.files is not None:
            paths, setting = listed_pictures(self.files, self.data_root, 'unlabelled.files'), 'unlabelled.files'
        else:
            setting = 'unlabelled.data_root'
            paths, left = pictures_below(self.data_root, setting)
            if left:
                print_log(f'`{setting}`: {left.total()} files of {self.data_root} are no pictures and are not used: '
                          f'{dict(left.most_common(5))}.', logger='current', level=logging.WARNING)
        kept = [path for path in paths if osp.realpath(path) not in self._leave_out] if self._leave_out else paths
        if not kept:
            raise ValueError(f'`{setting}`: all {len(paths)} pictures have labels, none is left to be unlabelled. Name '
                             'other pictures.')
        check_pictures(kept, setting)
        labelled = f'; {len(paths) - len(kept)} more have labels and count as such' if len(kept) < len(paths) else ''
        print_log(f'Unlabelled pictures: {len(kept)}{labelled}.', logger='current')
        return [dict(img_path=path, seg_fields=[], label_map=None, reduce_zero_label=False, unlabelled=True)
                for path in kept]

    def prepare_data(self, idx: int) -> dict:
        """A sample, marked as one without labels.

        Raises:
            ValueError: the pipeline does not end in a transform that packs.
        """
        sample = super().prepare_data(idx)
        if not hasattr(sample.get('data_samples') if isinstance(sample, dict) else None, 'set_metainfo'):
            raise ValueError('`unlabelled.pipeline`: expected the training pipeline of the student, which ends in '
                             f'PackSegInputs, got {self.pipeline}')
        sample['data_samples'].set_metainfo(dict(unlabelled=True))
        return sample


@DATASETS.register_module()
class WithUnlabelled(ConcatDataset):
    """A labelled data set and, behind it, pictures without labels; for :class:`~.mixed_sampler.MixedSampler`.

    Args:
        labelled: Config of the student's data set.
        unlabelled: Arguments of :class:`UnlabelledDataset`, at least ``dict(data_root=FOLDER)``. Its pipeline is the
            labelled data set's, unless it names one. Pictures that are in the labelled data set are left out of it.
        **unexpected: Nothing.

    Raises:
        ValueError: a malformed setting, or as :class:`UnlabelledDataset`.
    """

    def __init__(self, labelled: dict, unlabelled: dict, **unexpected):
        where = '`train_dataloader.dataset`'
        if unexpected:
            raise ValueError(
                f"{where}: mmseg_kd.WithUnlabelled takes `labelled` and `unlabelled`, got {sorted(unexpected)} as "
                'well. If they come from the config below, write dataset=dict(_delete_=True, '
                "type='mmseg_kd.WithUnlabelled', ...).")
        for name, settings in (('labelled', labelled), ('unlabelled', unlabelled)):
            if not isinstance(settings, dict):
                raise ValueError(f'{where}: expected {name}=dict(...), the config of a data set, got {settings!r}.')
        first = ROOT_DATASETS.build(labelled)
        settings = dict(copy.deepcopy(dict(unlabelled)))
        kind = settings.pop('type', 'mmseg_kd.UnlabelledDataset')
        if kind not in ('mmseg_kd.UnlabelledDataset', 'UnlabelledDataset', UnlabelledDataset):
            raise ValueError(f"{where}: expected unlabelled=dict(type='mmseg_kd.UnlabelledDataset', ...), got "
                             f'type={kind!r}.')
        if settings.get('pipeline') is None:
            settings['pipeline'] = pipeline_of(labelled)
        if settings['pipeline'] is None:
            raise ValueError(f'{where}: no pipeline for single pictures in `labelled`; give '
                             'unlabelled=dict(data_root=..., pipeline=train_pipeline).')
        settings.setdefault('ignore_index', getattr(_inner(first), 'ignore_index', 255))
        second = UnlabelledDataset(leave_out=_paths(first), metainfo=first.metainfo, **settings)
        super().__init__([first, second])

    @property
    def labelled(self):
        """The data set with labels; its indices come first."""
        return self.datasets[0]

    @property
    def unlabelled(self) -> UnlabelledDataset:
        """The pictures without labels."""
        return self.datasets[1]

    @property
    def metainfo(self) -> dict:
        """The labelled data set's."""
        return self.labelled.metainfo

    def get_data_info(self, idx: int) -> dict:
        """What is known of a picture before it is loaded."""
        source = int(idx >= len(self.labelled))
        return self.datasets[source].get_data_info(idx - source * len(self.labelled))


def _inner(dataset):
    while hasattr(dataset, 'dataset'):  # repeated, and the like
        dataset = dataset.dataset
    return dataset


def _paths(dataset) -> set[str]:
    """Files of the pictures of a data set, as far as it tells them."""
    dataset = _inner(dataset)
    if hasattr(dataset, 'datasets'):
        return set().union(*map(_paths, dataset.datasets))
    if not hasattr(dataset, 'get_data_info'):
        return set()
    infos = (dataset.get_data_info(index) for index in range(len(dataset)))
    return {info['img_path'] for info in infos if isinstance(info.get('img_path'), str)}
