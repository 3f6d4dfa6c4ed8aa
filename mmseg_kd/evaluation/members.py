"""The models of a report: those of the runs, and the teacher of the distilled ones."""
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config
from torch import nn

from mmseg_kd.config import read_config
from mmseg_kd.evaluation.runs import Run, read_run
from mmseg_kd.export.plain import build_plain
from mmseg_kd.safe_load import load_config_without_code

__all__ = ['Member', 'cast', 'load', 'named_runs']

TEACHER, ALONE, DISTILLED = 'teacher', 'alone', 'distilled'


@dataclass
class Member:
    """A model of the report.

    Attributes:
        name: How it is called.
        role: 'teacher', 'alone' or 'distilled'.
        run: Its run; None for a teacher that no work dir was given for.
        config: Config of its training.
        checkpoint: Its weights.
    """

    name: str
    role: str
    run: Run | None
    config: Config
    checkpoint: Path
    color: str = field(default='')


def named_runs(items: list[str], trusted: bool = False) -> list[Member]:
    """A member for each ``WORK_DIR`` or ``NAME=WORK_DIR``; without a name it is called by its folder.

    Raises:
        ValueError: no run in a work dir, or two of one name.
    """
    members = []
    for item in items:
        name, _, work_dir = item.rpartition('=')
        run = read_run(work_dir, trusted)
        members.append(Member(name or Path(work_dir).resolve().name, ALONE, run, run.config, run.checkpoint))
    if len({member.name for member in members}) < len(members):
        raise ValueError(f'`runs`: two have one name among {[member.name for member in members]}; name them '
                         'NAME=WORK_DIR.')
    return members


def cast(items: list[str], trusted: bool = False) -> list[Member]:
    """The members of a report, teacher first, then students alone, then distilled ones.

    Args:
        items: ``WORK_DIR`` or ``NAME=WORK_DIR`` each.
        trusted: Whether the configs of the runs may be run as Python.

    Raises:
        ValueError: two of one name, models of different kinds or neither segmentors nor classifiers, no distilled
            run, more than one teacher, or one that is gone.
    """
    members = named_runs(items, trusted)
    others = [member.name for member in members if 'decode_head' not in member.config.model]
    if others and len(others) < len(members):
        raise ValueError(f'`runs`: the report compares models of one kind; {others} have no `model.decode_head`, the '
                         'others have one. Make a report of each kind.')
    strange = [member.name for member in members if not {'decode_head', 'head'} & set(member.config.model)]
    if strange:
        raise ValueError(f'`runs`: the report is of segmentors or image classifiers; {strange} have neither '
                         '`model.decode_head` nor `model.head`. For other models there is tools/analysis/compare.py.')
    distilled = [member for member in members if 'teacher' in member.config.model]
    if not distilled:
        raise ValueError('`runs`: expected the work dir of at least one distilled run, got none; its config has '
                         '`model.teacher`.')
    for member in distilled:
        teacher = member.config.model.teacher
        if not isinstance(teacher, dict) or not {'config', 'checkpoint'} <= set(teacher):
            raise ValueError('`runs`: the report compares with one trained teacher, dict(config=..., checkpoint=...); '
                             f'{member.name} has {teacher!r}.')
    teachers = {str(member.config.model.teacher.checkpoint) for member in distilled}
    if len(teachers) > 1:
        raise ValueError(f'`runs`: expected distilled runs of one teacher, got {sorted(teachers)}.')
    for member in distilled:
        member.role = DISTILLED
    checkpoint = Path(teachers.pop())
    teacher = next((member for member in members if member.role == ALONE and _same(member, checkpoint)), None)
    if teacher is None:
        if not checkpoint.is_file():
            raise ValueError(f'`runs`: the teacher {str(checkpoint)!r} of {distilled[0].run.work_dir} is not there any '
                             "more; add the teacher's own work dir.")
        config = _teacher_config(distilled[0].config.model.teacher.config, trusted)
        teacher = Member('teacher', TEACHER, None, config, checkpoint)
        members.append(teacher)
    teacher.role, teacher.checkpoint = TEACHER, checkpoint if checkpoint.is_file() else teacher.checkpoint
    return sorted(members, key=lambda member: [TEACHER, ALONE, DISTILLED].index(member.role))


def _teacher_config(config: str | dict, trusted: bool) -> Config:
    """The teacher's config that a run names, which is a program only if it is trusted, or of an installed package."""
    installed = isinstance(config, str) and '::' in config and '..' not in config
    if trusted or installed or not isinstance(config, str):
        return read_config(config, 'model.teacher.config')
    if not Path(config).is_file():
        raise ValueError(f"`runs`: the teacher's config {config!r} is not there any more; add the teacher's own work "
                         'dir.')
    try:
        return load_config_without_code(config, 'model.teacher.config')
    except ValueError as error:
        raise ValueError(f"{error} Or add the teacher's own work dir.") from error


def _same(member: Member, checkpoint: Path) -> bool:
    """Whether a checkpoint is what a run tested, or is of a run, here or where that lay before both moved."""
    here = member.run.work_dir.resolve()
    return checkpoint.resolve() in (member.checkpoint.resolve(), here / checkpoint.name) or (
        checkpoint.parent.name == here.name and (here / checkpoint.name).is_file())


def load(member: Member, device: str) -> nn.Module:
    """Build a member's plain model with its weights, for inference."""
    model, _ = build_plain(member.config, str(member.checkpoint))
    return model.to(device)
