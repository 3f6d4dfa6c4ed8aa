"""Hooks that distilled training needs of mmengine's Runner."""
from .exact_resume import ExactResumeHook
from .train_only_state import TrainOnlyStateHook

__all__ = ['ExactResumeHook', 'TrainOnlyStateHook']
