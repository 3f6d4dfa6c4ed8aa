"""Statistics of distillation in the log of a run."""
import logging

from mmengine.hooks import Hook, LoggerHook
from mmengine.logging import print_log

from mmseg_kd.registry import HOOKS

from .step_statistics import StepStatistics, main_classifier
from .unwrapped import unwrapped

__all__ = ['DistillStatisticsHook']

_DEFAULT_INTERVAL = 50


@HOOKS.register_module()
class DistillStatisticsHook(Hook):
    """Log what distillation does, at every ``interval``-th training step, for each term.

    Into mmengine's Visualizer, whatever backends it has (JSON, TensorBoard, W&B, MLflow), under these names, with the
    term's name at the end; means are over the labelled positions of the batch (of a large one over an even grid of at
    most 16384 positions a process), over all processes:

    - ``distill.target_``, ``distill.non_target_``, ``distill.between_``, ``distill.within_top_``,
      ``distill.within_rest_``, ``distill.inter_class_``, ``distill.intra_class_``: the parts of the loss, at weight 1
      (see ``part_values`` of the losses). ``DGKDLoss`` adds what
      :func:`~mmseg_kd.functional.dgkd_diagnostics` measures.
    - ``distill.supervised_cosine_``: cosine between the gradients of the supervised losses and of the term, at the
      input of the main classifier, which both reach; absent where the term does not reach it.
    - ``distill.teacher_confidence_``: the teacher's largest probability, at temperature 1.
    - ``distill.agreement_``: share of positions where student and teacher name the same class.
    - ``distill.label_confidence_``: the student's probability of the label, at temperature 1, where the loss is given
      labels.

    The last three for terms on logits. Other steps are left alone, and the watched ones bring their numbers to the host
    once; ``tools/benchmarks/distill_statistics.py`` measures what it costs. ``tools/train.py`` adds this hook to every
    run; it does nothing for models without terms.

    Args:
        interval: Training steps between two records; None: that of the Runner's ``LoggerHook`` and at least 50.

    Raises:
        ValueError: ``interval`` is not a positive integer.
    """

    def __init__(self, interval: int | None = None):
        if interval is not None and (not isinstance(interval, int) or isinstance(interval, bool) or interval < 1):
            raise ValueError(f'`interval`: expected a positive integer or None, got {interval!r}.')
        self.interval = interval
        self._step: StepStatistics | None = None

    def before_train(self, runner) -> None:
        """Fix the interval."""
        if self.interval is None:
            logger = next((hook for hook in runner.hooks if isinstance(hook, LoggerHook)), None)
            # A multiple of the logger's, so that both speak of the same steps.
            of_logger = _DEFAULT_INTERVAL if logger is None else logger.interval
            self.interval = of_logger * max(1, -(-_DEFAULT_INTERVAL // of_logger))
        model = _distilled(runner)
        if model is not None and main_classifier(model) is None:
            print_log(f'DistillStatisticsHook: {type(model).__name__} has no layer where the supervised and the '
                      'distillation gradient can be compared; no distill.supervised_cosine_* is logged.',
                      logger='current', level=logging.WARNING)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Watch this step if it is to be recorded."""
        if self.every_n_train_iters(runner, self.interval):
            model = _distilled(runner)
            self._step = None if model is None else StepStatistics(model)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Record the step if it was watched."""
        if self._step is None:
            return
        values, self._step = self._step.close(), None
        if values:
            runner.visualizer.add_scalars(values, step=runner.iter + 1)


def _distilled(runner):
    model = unwrapped(runner.model)
    return model if getattr(model, 'terms', None) is not None else None
