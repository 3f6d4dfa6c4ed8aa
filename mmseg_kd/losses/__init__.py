"""The loss modules, registered. Importing this package registers them all."""
from .attention_transfer import AttentionTransferLoss
from .base import DistillationLoss
from .binary_kl import BinaryKLLoss
from .binary_kl_norm import BinaryKLNormLoss
from .cwd import CWDLoss
from .dgkd import DGKDLoss
from .dist import DISTLoss
from .dkd import DKDLoss
from .feature_mse import FeatureMSELoss
from .gdkd import GDKDLoss
from .gdkd3 import GDKD3Loss
from .hierarchical_context import HierarchicalContextLoss
from .kd import KDLoss
from .logit_mse import LogitMSELoss
from .stochastic_gdkd import StochasticGDKDLoss

__all__ = [
    'AttentionTransferLoss', 'BinaryKLLoss', 'BinaryKLNormLoss', 'CWDLoss', 'DGKDLoss', 'DISTLoss', 'DKDLoss',
    'DistillationLoss', 'FeatureMSELoss', 'GDKD3Loss', 'GDKDLoss', 'HierarchicalContextLoss', 'KDLoss', 'LogitMSELoss',
    'StochasticGDKDLoss'
]
