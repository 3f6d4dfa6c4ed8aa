"""Write the answers of a config's teacher as label maps, for whoever trains elsewhere.

    python tools/pseudo_label.py CONFIG --out FOLDER [--unlabelled DIR] [--threshold 0.9] [--cfg-options ...]

The pictures are those of DIR; without it the unlabelled ones of the config, or its whole training set. The teacher sees
them as mmseg's evaluation would, through the config's validation pipeline. FOLDER gets a PNG for each, in the folders
that the pictures are in. A run that is stopped continues where it was.
"""
import argparse
import logging
import os.path as osp
from pathlib import Path

import mmengine
import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, init_default_scope

import mmseg_kd  # noqa: F401 (before configs are read: makes 'mmseg::' bases resolve)
from mmseg_kd.config import read_config
from mmseg_kd.config_names import type_name
from mmseg_kd.datasets.label_maps import LabelMapFolder
from mmseg_kd.datasets.teacher_cache import checkpoint_digest
from mmseg_kd.datasets.unlabelled import pictures_of, pipeline_of
from mmseg_kd.registry import MODELS
from mmseg_kd.teachers.class_names import metainfo_in_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='a distilled training config')
    parser.add_argument('--out', required=True, type=Path, help='folder of the label maps')
    parser.add_argument('--unlabelled', metavar='DIR', help='a folder of pictures, as of tools/train.py')
    parser.add_argument('--threshold', type=float, default=0.,
                        help='pixels whose class has a lower probability become 255 (default: none do)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override settings of the config')
    return parser.parse_args()


def pictures(cfg: Config, folder: str | None):
    """The pictures as the validation pipeline delivers them, without labels, and the folder that they are named by."""
    evaluated = (cfg.get('val_dataloader') or {}).get('dataset')
    pipeline = (evaluated and pipeline_of(evaluated)) or [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    training = cfg.train_dataloader.dataset
    folder = folder or (training.get('unlabelled') or {}).get('data_root')
    if folder:
        settings = dict(type='mmseg_kd.UnlabelledDataset', data_root=folder, pipeline=pipeline)
    else:
        pipeline = [each for each in pipeline if 'Annotation' not in type_name(each)]
        settings = pictures_of(training, pipeline)
    dataset = DATASETS.build(settings)
    paths = [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]
    return dataset, folder or osp.commonpath([osp.dirname(path) for path in paths]), paths


def name_of(path: str, folder: str, dataset: dict) -> str:
    """Name of the label map of a picture: the data set's own endings, or just .png."""
    name = osp.relpath(path, folder)
    ending = dataset.get('img_suffix', '_leftImg8bit.png' if type_name(dataset) == 'CityscapesDataset' else '.jpg')
    if name.endswith(ending):
        return name[:-len(ending)] + dataset.get(
            'seg_map_suffix', '_gtFine_labelTrainIds.png' if type_name(dataset) == 'CityscapesDataset' else '.png')
    return f'{osp.splitext(name)[0]}.png'


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, 'config')
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if not 0 <= args.threshold < 1:
        raise ValueError(f'`--threshold`: expected a probability, at least 0 and below 1, got {args.threshold}.')
    teacher = cfg.model.get('teacher')
    if not isinstance(teacher, dict) or not (teacher.get('checkpoint') or teacher.get('model')):
        raise ValueError('`model.teacher`: expected one teacher with a checkpoint, whose answers are worth a label, '
                         f'got {teacher!r}.')
    logging.disable(logging.INFO)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    dataset, folder, paths = pictures(cfg, args.unlabelled)
    labelled = cfg.train_dataloader.dataset
    while isinstance(labelled.get('dataset') or labelled.get('labelled'), dict):
        labelled = labelled.get('dataset') or labelled['labelled']
    names = [name_of(path, folder, labelled) for path in paths]
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()
    if twice:
        raise ValueError(f'`--out`: several pictures would have the label map {sorted(twice)[0]}. Rename them.')
    model = MODELS.build(cfg.model).to(args.device).eval()
    source = teacher.get('checkpoint') or teacher['model']
    maps = LabelMapFolder(args.out, dict(
        teacher=str(teacher.get('config') or teacher.get('model') or teacher.get('build')), checkpoint=str(source),
        checkpoint_sha256=checkpoint_digest(str(source)), threshold=args.threshold),
        metainfo_in_config(cfg, 'mmseg').get('palette'))
    kept = total = 0
    progress = mmengine.ProgressBar(len(names))
    for index, name in enumerate(names):
        if not maps.path_of(name).is_file():
            data = pseudo_collate([dataset[index]])
            for sample in data['data_samples']:
                # Its map of no labels was loaded before the picture was resized.
                sample.pop('gt_sem_seg', None)
            answer, = model.teacher_predictions(model.teacher, data)
            sure = answer.logits.softmax(0).amax(0) >= args.threshold
            maps.write(name, answer.predicted.masked_fill(~sure, 255).cpu().numpy())
            kept, total = kept + int(sure.sum()), total + sure.numel()
        progress.update()
    share = f', {100 * kept / total:.1f} % of the pixels of the new ones have a label' if total else ''
    print(f'\n{args.out}: label maps of {len(names)} pictures{share}.')


if __name__ == '__main__':
    main()
