_base_ = ['default_runtime.py']
default_scope = 'mmdet'
visualizer = dict(type='DetLocalVisualizer')
