"""The formulas: from logits to unreduced maps, and the one reduction. Plain functions of tensors.

A loss of the family is a description (:class:`~.grouped.GroupedLoss`) that :func:`~.evaluate.loss_of` computes;
``cpu/`` and ``gpu/`` hold its fast forms, and import numba and Triton when they are needed.
"""
from .attention_transfer import attention_transfer_loss
from .binary_kl import binary_kl_loss
from .binary_kl_norm import binary_kl_norm_loss
from .checks import checked, loss_function
from .cwd import cwd_loss
from .dgkd import dgkd_diagnostics, dgkd_loss
from .dist import dist_loss
from .dkd import dkd_loss
from .evaluate import loss_of, reduced
from .feature_mse import feature_mse_loss
from .gdkd import gdkd_loss
from .gdkd3 import gdkd3_loss
from .grouped import ByClass, ByLabel, ByRank, GroupedKL, GroupedLoss, OneGroup, RandomPart, TargetAndRest, grouped_kl
from .hierarchical_context import hierarchical_context_loss
from .kd import kd_loss
from .logit_mse import logit_mse_loss
from .stochastic_gdkd import stochastic_gdkd_loss
from .topk import k_by_mass, k_by_ratio
from .upsampled import Upsampled

__all__ = [
    'ByClass', 'ByLabel', 'ByRank', 'GroupedKL', 'GroupedLoss', 'OneGroup', 'RandomPart', 'TargetAndRest', 'Upsampled',
    'attention_transfer_loss', 'binary_kl_loss', 'binary_kl_norm_loss', 'checked', 'cwd_loss', 'dgkd_diagnostics',
    'dgkd_loss', 'dist_loss', 'dkd_loss', 'feature_mse_loss', 'gdkd3_loss', 'gdkd_loss', 'grouped_kl',
    'hierarchical_context_loss', 'k_by_mass', 'k_by_ratio', 'kd_loss', 'logit_mse_loss', 'loss_function', 'loss_of',
    'reduced', 'stochastic_gdkd_loss'
]
