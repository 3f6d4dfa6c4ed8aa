from .coco_instances import write_coco_instances
from .file_checks import check_pair
from .mini_cityscapes import generate_mini_cityscapes
from .tree_check import check_tree

__all__ = ['check_pair', 'check_tree', 'generate_mini_cityscapes', 'write_coco_instances']
