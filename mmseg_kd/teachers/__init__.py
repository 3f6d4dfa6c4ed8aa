"""Teachers: guests in the student's training, whatever they are made of."""
from .build import build_teacher, build_teachers
from .guest import Teacher
from .host import Host

__all__ = ['Host', 'Teacher', 'build_teacher', 'build_teachers']
