"""What a run says on the terminal: the log file has everything, the terminal what a person reads."""
import io
import logging
import os
import sys
import traceback
import warnings
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import RUNNERS

__all__ = ['build_runner', 'short_errors', 'without_noise']

#: Pages that mmengine logs before training; the log file has them.
_PAGES = ('\n' + '-' * 60 + '\nSystem environment:', 'Config:\n', 'Hooks will be executed in the following order:')
#: Remarks of the stack that nobody can act on.
_REMARKS = ('"FileClient" will be deprecated', '"HardDiskBackend" is the alias',
            'The prefix is not set in metric class', 'Distributed training is not used, all SyncBatchNorm')
_WARNINGS = ('Fail to import ``MultiScaleDeformableAttention``', 'The draw is False, it means that the hook',
             'Default ``avg_non_ignore`` is False', 'save_param_scheduler is True but')
_PRINTED = 'Could not import OneDL\n'
#: Errors of ours that say what to do; the way to them through the code says nothing more.
_OURS = Path(__file__).parents[1]


class _ForTheTerminal(logging.Filter):
    """Leaves pages and remarks to the log file."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return not text.startswith((*_PAGES, *_REMARKS))


def without_noise() -> None:
    """Import mmseg without what it prints, and silence its warnings of parts that nobody asked for.

    The processes of a distributed run that are not the first one show only errors.
    """
    for start in _WARNINGS:
        warnings.filterwarnings('ignore', message='.*' + start.replace('`', '.'))
    if int(os.environ.get('RANK', 0)):
        warnings.simplefilter('ignore')
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            import_module('mmseg.datasets')
    finally:
        sys.stdout.write(printed.getvalue().replace(_PRINTED, ''))


def build_runner(cfg: Config):
    """The Runner of a config, which shows on the terminal what a person reads and says where the rest is.

    Args:
        cfg: A config; ``runner_type`` names another Runner than mmengine's.
    """
    without_noise()
    kind = RUNNERS.get(cfg.get('runner_type', 'Runner'))

    class QuietRunner(kind):
        """Filters its terminal from the first line on."""

        def build_logger(self, *args, **kwargs):
            logger = super().build_logger(*args, **kwargs)
            for handler in logger.handlers:
                if type(handler) is logging.StreamHandler:
                    handler.addFilter(_ForTheTerminal())
            size = int(os.environ.get('WORLD_SIZE', 1))
            processes = f'{size} processes. ' if size > 1 else ''
            logger.info(f'{processes}The environment, the whole config and the hooks are in {logger.log_file}')
            return logger

        def dump_config(self):
            # mmengine writes the whole config by the name of the file that it was read from: over that file, if a user
            # keeps it in the work dir. vis_data/config.py has the whole one as well.
            source = self.cfg.filename
            if source is None or Path(source).resolve() != (Path(self.work_dir) / Path(source).name).resolve():
                super().dump_config()

    QuietRunner.__name__ = QuietRunner.__qualname__ = kind.__name__
    return QuietRunner.from_cfg(cfg)


def short_errors() -> None:
    """Show an error that this package raised for its user as one line; ``MMSEG_KD_TRACEBACK=1`` shows the way to it."""
    if os.environ.get('MMSEG_KD_TRACEBACK', '0') not in ('', '0'):
        return

    def show(kind, error, trace):
        frames = traceback.extract_tb(trace)
        # A registry passes on what the constructor of a hook or a model raised.
        ours = frames and any(_OURS in Path(frame.filename).resolve().parents for frame in frames[-2:])
        if not ours or not issubclass(kind, (ValueError, ImportError, FloatingPointError, FileExistsError)):
            return sys.__excepthook__(kind, error, trace)
        print(f'{kind.__name__}: {error}', file=sys.stderr)

    sys.excepthook = show
