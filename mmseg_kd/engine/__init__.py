"""Hooks and optimizer wrappers that distilled training needs of mmengine's Runner."""
from .distill_statistics import DistillStatisticsHook
from .exact_resume import ExactResumeHook
from .grad_align import AmpGradAlignOptimWrapper, GradAlignOptimWrapper
from .peak_memory import PeakMemoryHook
from .schedule_hook import DistillScheduleHook
from .train_only_state import TrainOnlyStateHook

__all__ = [
    'AmpGradAlignOptimWrapper', 'DistillScheduleHook', 'DistillStatisticsHook', 'ExactResumeHook',
    'GradAlignOptimWrapper', 'PeakMemoryHook', 'TrainOnlyStateHook'
]
