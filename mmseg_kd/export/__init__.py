"""The trained student, for machines without this package."""
from .student import export_student

__all__ = ['export_student']
