"""The formulas: from logits to unreduced maps, and the one reduction. Plain functions of tensors, torch alone."""
from .dkd import dkd_loss
from .gdkd import gdkd_loss
from .grouped import GroupedKL, grouped_kl
from .kd import kd_loss

__all__ = ['GroupedKL', 'dkd_loss', 'gdkd_loss', 'grouped_kl', 'kd_loss']
