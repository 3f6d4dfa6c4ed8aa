"""Compute the logits of a config's teacher on its training images once, so that training needs no teacher.

    python tools/cache_teacher.py CONFIG --out FOLDER [--top-k 5] [--cfg-options ...]

Then train with ``model.teacher.cache=FOLDER``. The teacher sees the whole images, as they are on disk or at
``--scale``, which should be near the size that it was trained at; in training its logits follow their resizing,
cropping and flipping. A run that is stopped continues where it was.
"""
import argparse
import json
import logging
from pathlib import Path

import mmengine
import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

import mmseg_kd  # noqa: F401 (before configs are read: makes 'mmseg::' bases resolve)
from mmseg_kd.config import read_config
from mmseg_kd.datasets.teacher_cache import CachedMap, TeacherCache, image_loading
from mmseg_kd.datasets.unlabelled import pictures_of, pipeline_of
from mmseg_kd.distillers.segmentation.prediction import ask_teacher, small_map
from mmseg_kd.registry import MODELS
from mmseg_kd.safe_load import download
from mmseg_kd.teachers.cached import config_digest, weights_digest

# Kinds of teachers that have weights without a `checkpoint`.
_WITH_WEIGHTS = ('exported', 'huggingface', 'module')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='a distilled training config')
    parser.add_argument('--out', required=True, type=Path, help='folder of the cache')
    parser.add_argument('--top-k', type=int, help='store the k largest logits and the sum of the rest (default: all)')
    parser.add_argument('--scale', type=int, nargs=2, metavar=('WIDTH', 'HEIGHT'),
                        help="size that the teacher sees images at, their proportions kept, as mmseg's Resize does "
                        '(default: as they are on disk)')
    parser.add_argument('--unlabelled', metavar='DIR', help='a folder of pictures without labels, as of tools/train.py')
    parser.add_argument('--device', help='where the teacher runs (default: cuda if there is a GPU)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override settings of the config')
    return parser.parse_args()


def training_images(cfg: Config, scale: list[int] | None):
    """The training set without augmentation or labels, loaded as in training: one image after the other."""
    from mmseg.registry import DATASETS
    resize = [dict(type='Resize', scale=tuple(scale), keep_ratio=True)] if scale else []
    dataset = cfg.train_dataloader.dataset
    pipeline = [*image_loading(pipeline_of(dataset) or []), *resize, dict(type='PackSegInputs')]
    return DATASETS.build(pictures_of(dataset, pipeline))


def digest_of(settings: dict) -> str | None:
    """The digest of a teacher's weights, also of a checkpoint that was downloaded."""
    checkpoint = settings.get('checkpoint')
    if checkpoint and checkpoint.startswith(('http://', 'https://')):
        checkpoint = download(checkpoint, settings.get('sha256'), 'teacher.checkpoint')
    return weights_digest(dict(settings, checkpoint=checkpoint))


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, 'config')
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if args.unlabelled:
        cfg.train_dataloader.dataset = dict(type='mmseg_kd.WithUnlabelled', labelled=cfg.train_dataloader.dataset,
                                            unlabelled=dict(data_root=args.unlabelled))
    logging.disable(logging.INFO)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    settings = cfg.model.get('teacher')
    if isinstance(settings, (list, tuple)):
        raise SystemExit(f'{args.config} has {len(settings)} teachers: make a cache of each, with a config of its own')
    if not settings or not (settings.get('checkpoint') or settings.get('type') in _WITH_WEIGHTS):
        raise SystemExit(f'{args.config} has no model.teacher with a checkpoint: there is nothing to cache')
    settings.pop('cache', None)
    device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    model = MODELS.build(cfg.model).to(device).eval()
    teacher, classes = model.teacher, model.teacher.num_classes
    if args.top_k is not None and not 1 <= args.top_k < classes:
        raise SystemExit(f'--top-k: expected 1 .. {classes - 1} for {classes} classes, got {args.top_k}')
    if args.scale is not None and min(args.scale) < 1:
        raise SystemExit(f'--scale: expected a width and a height of at least 1, got {args.scale}')
    dataset, cache = training_images(cfg, args.scale), TeacherCache(args.out)
    # As it is read back: JSON has no tuples.
    loading = json.loads(json.dumps(image_loading(pipeline_of(cfg.train_dataloader.dataset) or []), default=str))
    cache.begin(dict(
        config=str(settings.get('config') or settings.get('build') or settings.get('model') or settings.get('file')),
        config_sha256=config_digest(settings), checkpoint=settings.get('checkpoint'),
        checkpoint_sha256=digest_of(settings), classes=classes, top_k=args.top_k,
        class_names=list(teacher.classes) if teacher.classes else None, scale=args.scale, loading=loading,
        align_corners=teacher.align_corners))
    progress = mmengine.ProgressBar(len(dataset))
    for index in range(len(dataset)):
        image = dataset.get_data_info(index)['img_path']
        if not cache.is_whole(cache.path_of(image)):
            answer, = ask_teacher(teacher, model.data_preprocessor, pseudo_collate([dataset[index]]))
            logits, size, align_corners = small_map(answer)
            cache.write(image, CachedMap(logits[0].float().cpu().numpy(), align_corners, answer.seen, size), args.top_k)
        progress.update()
    cache.finish(len(dataset))
    size = sum(path.stat().st_size for path in cache.logits_folder.iterdir())
    print(f'\n{args.out}: logits of {len(dataset)} images, {size / 1e6:.1f} MB. Train with '
          f'--cfg-options model.teacher.cache={args.out}')


if __name__ == '__main__':
    main()
