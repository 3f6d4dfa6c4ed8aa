from .compose import LEAST_SIZE, draw_scene
from .schedule import SCHEDULE, required_classes

__all__ = ['LEAST_SIZE', 'SCHEDULE', 'draw_scene', 'required_classes']
