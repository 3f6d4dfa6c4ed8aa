# Procedural street scenes, made by tools/dataset_converters/mini_cityscapes.py with --size 128 256.
_base_ = ['mini_cityscapes_64x128.py']
