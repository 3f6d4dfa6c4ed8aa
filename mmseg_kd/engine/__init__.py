"""Hooks and optimizer wrappers that distilled training needs of mmengine's Runner."""
from .checkpoint_loading import CheckpointFitHook
from .class_names_hook import ClassNamesHook
from .data_check import DataCheckHook
from .distill_statistics import DistillStatisticsHook
from .exact_resume import ExactResumeHook
from .finite_step import FiniteStepHook
from .first_step import FirstStepHook
from .former_hooks import DistillScheduleHook, EmaTeacherHook, TrainOnlyStateHook
from .fsdp_strategy import ResumableFSDPStrategy
from .grad_align import AmpGradAlignOptimWrapper, GradAlignOptimWrapper
from .peak_memory import PeakMemoryHook
from .safe_checkpoint import SafeCheckpointHook
from .stop_signal import StopSignalHook
from .teacher_check import TeacherCheckHook

__all__ = [
    'AmpGradAlignOptimWrapper', 'CheckpointFitHook', 'ClassNamesHook', 'DataCheckHook', 'DistillScheduleHook',
    'DistillStatisticsHook', 'EmaTeacherHook', 'ExactResumeHook', 'FiniteStepHook', 'FirstStepHook',
    'GradAlignOptimWrapper', 'PeakMemoryHook', 'ResumableFSDPStrategy', 'SafeCheckpointHook', 'StopSignalHook',
    'TeacherCheckHook', 'TrainOnlyStateHook'
]
