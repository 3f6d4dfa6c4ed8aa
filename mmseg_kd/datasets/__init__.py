from .coco_instances import write_coco_instances
from .file_checks import check_pair
from .mini_cityscapes import generate_mini_cityscapes
from .mixed_sampler import MixedSampler
from .shifts import NoisyPatch, ScrambledPatches
from .tree_check import check_tree
from .unlabelled import UnlabelledDataset, WithUnlabelled

__all__ = ['MixedSampler', 'NoisyPatch', 'ScrambledPatches', 'UnlabelledDataset', 'WithUnlabelled', 'check_pair',
           'check_tree', 'generate_mini_cityscapes', 'write_coco_instances']
