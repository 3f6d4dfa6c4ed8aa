from .mini_cityscapes import generate_mini_cityscapes

__all__ = ['generate_mini_cityscapes']
