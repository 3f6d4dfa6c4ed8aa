"""Teachers: guests in the student's training, whatever they are made of."""
from .build import build_teachers
from .guest import Teacher, build_teacher

__all__ = ['Teacher', 'build_teacher', 'build_teachers']
