"""The loss modules, registered. Importing this package registers them all."""
from .base import DistillationLoss
from .dkd import DKDLoss
from .gdkd import GDKDLoss
from .kd import KDLoss

__all__ = ['DKDLoss', 'DistillationLoss', 'GDKDLoss', 'KDLoss']
