"""The first batch of each split, before hours are spent."""
import os
import os.path as osp

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from mmseg_kd.config_names import type_name
from mmseg_kd.datasets.file_checks import open_picture
from mmseg_kd.registry import HOOKS

from .exact_resume import seeded

__all__ = ['DataCheckHook', 'refuse_empty_splits']

_PICTURES = ('.png', '.jpg', '.jpeg', '.bmp')


def refuse_empty_splits(cfg: Config) -> None:
    """Refuse folders without pictures, on which mmengine's data sets fail with words about arrays.

    ``data_check=False`` in the config leaves this out, as it does :class:`DataCheckHook`.

    Raises:
        ValueError: the folder of a split does not exist, or has no file with the data set's suffix.
    """
    for setting in ('train_dataloader', 'val_dataloader') if cfg.get('data_check') is not False else ():
        dataset = (cfg.get(setting) or {}).get('dataset') or {}
        while 'dataset' in dataset or 'labelled' in dataset:  # repeated, mixed, and the like
            dataset = dataset.get('dataset') or dataset['labelled']
        folder = (dataset.get('data_prefix') or {}).get('img_path')
        if folder is None or dataset.get('ann_file') or '://' in str(dataset.get('data_root')):
            continue
        folder = osp.join(dataset.get('data_root') or '', folder)
        suffix = dataset.get('img_suffix', '_leftImg8bit.png' if type_name(dataset) == 'CityscapesDataset' else '')
        if not any(name.endswith(suffix) for _, _, names in os.walk(folder, followlinks=True) for name in names):
            what = f'holds no file *{suffix}' if osp.isdir(folder) else 'does not exist' + (
                '' if osp.isabs(folder) else f' ({folder} was looked up in {os.getcwd()})')
            raise ValueError(f'`{setting}.dataset`: the split is empty, its folder {osp.abspath(folder)} {what}; '
                             'correct data_root, data_prefix or img_suffix.')


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Check the first pictures of each split when training starts: as files, and as the pipeline delivers them.

    Of segmentation data sets: files that are cut off (which OpenCV reads without a word), a label map of another size,
    and what the pipeline delivers: no label for each pixel, labels outside the classes. Which bands, bits or palette a
    file has is the affair of the pipeline. Random numbers are left as they were. The whole data set is checked by
    ``tools/check_dataset.py``. ``tools/train.py`` adds this hook to every run; ``--cfg-options data_check=False``
    leaves it out.

    Args:
        pictures: How many pictures of each split, at most; None: a batch.

    Raises:
        ValueError: a file or a sample is not what it should be; the message names the file.
    """

    # Before ExactResumeHook, which lets samples know their position.
    priority = 'HIGHEST'

    def __init__(self, pictures: int | None = None):
        self.pictures = pictures

    def before_train(self, runner) -> None:
        """Look at both splits."""
        if not is_main_process():
            return
        loops = [('train_dataloader', runner.train_loop)]
        if runner.val_loop is not None:
            loops.append(('val_dataloader', runner.val_loop))
        for setting, loop in loops:
            dataset = loop.dataloader.dataset
            size = loop.dataloader.batch_size or 1
            for index in _first_ones(dataset, self.pictures or size):
                with seeded(0, index):
                    _check_sample(setting, dataset, index)


def _first_ones(dataset: BaseDataset, number: int) -> list[int]:
    """Indices of the first samples, and of the first ones without labels."""
    if not hasattr(dataset, 'unlabelled'):
        return list(range(min(number, len(dataset))))
    labelled = len(dataset.labelled)
    return [*range(min(number, labelled)), *range(labelled, min(labelled + number, len(dataset)))]


def _check_sample(setting: str, dataset: BaseDataset, index: int) -> None:
    info = dataset.get_data_info(index) if hasattr(dataset, 'get_data_info') else {}
    files = [info.get(key) for key in ('img_path', 'seg_map_path')]
    if files[1] is None and not info.get('unlabelled'):
        return  # no segmentation
    if info.get('unlabelled') and files[0].lower().endswith(_PICTURES):
        try:
            open_picture(files[0])
        except ValueError as error:
            raise ValueError(f'`{setting}.dataset.unlabelled`: {error}') from error
    bands = ''
    if all(isinstance(path, str) and '://' not in path and path.lower().endswith(_PICTURES) for path in files):
        if not osp.isfile(files[1]):
            raise ValueError(f'`{setting}.dataset`: {files[0]} has no label map, expected {files[1]}.')
        try:
            image, label = map(open_picture, files)
        except ValueError as error:
            raise ValueError(f'`{setting}.dataset`: {error}') from error
        if image.size != label.size:
            raise ValueError(f'`{setting}.dataset`: {files[1]}: is {label.height}x{label.width}, its picture '
                             f'{image.height}x{image.width}')
        # What the pipeline makes of several bands is its own affair, but one label must come out for each pixel.
        bands = f' The file has the mode {label.mode}, expected one channel.' if len(label.getbands()) > 1 else ''
    try:
        sample = dataset[index]
    except Exception as error:
        if str(error).startswith('`teacher.cache`'):
            raise  # it names the cache's file; the picture is not at fault
        raise ValueError(f'`{setting}.dataset.pipeline`: {files[0]} with {files[1]} cannot be loaded: '
                         f'{type(error).__name__}: {error}{bands}') from error
    label = getattr(sample.get('data_samples'), 'gt_sem_seg', None)
    if label is None:
        return
    label, image = label.data, sample['inputs']
    if label.dim() != 3 or len(label) != 1:
        raise ValueError(f'`{setting}.dataset`: {files[1]} comes out of the pipeline as {tuple(label.shape)}, expected '
                         f'one label for each pixel, (1, height, width).{bands}')
    # A validation pipeline resizes the picture and leaves the labels.
    if setting == 'train_dataloader' and label.shape[-2:] != image.shape[-2:]:
        raise ValueError(f'`{setting}.dataset.pipeline`: {files[0]} comes out as {tuple(image.shape)}, its labels as '
                         f'{tuple(label.shape)}; both must have one size.')
    classes = dataset.metainfo.get('classes')
    ignored = getattr(dataset, 'ignore_index', 255)
    outside = label[(label != ignored) & ((label < 0) | (label >= len(classes)))].unique() if classes else label[:0]
    if outside.numel():
        raise ValueError(f'`{setting}.dataset`: {files[1]} has labels {outside.tolist()[:8]}, expected 0 .. '
                         f'{len(classes) - 1} or {ignored}. tools/check_dataset.py checks all files.')
