"""Lets mmpretrain import beside transformers 5, which its language models do not know."""
import re
import sys
from importlib.abc import MetaPathFinder
from importlib.metadata import PackageNotFoundError, version

__all__ = ['leave_out_language_models']


class _BeforeModels(MetaPathFinder):
    """Acts just before ``mmpretrain.models`` is imported; finds nothing itself."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname == 'mmpretrain.models':
            sys.meta_path.remove(self)
            from mmpretrain.utils import dependency
            dependency.WITH_MULTIMODAL = False
        return None


def leave_out_language_models() -> None:
    """Let mmpretrain register placeholders in the place of its multimodal models if transformers is 5 or newer.

    mmpretrain imports them where transformers and pycocotools are installed, with names that transformers 5 no longer
    has, and then mmpretrain and mmdet do not import at all. With an older transformers nothing is changed.
    """
    try:
        major = int(re.match(r'\d+', version('transformers'))[0])
    except PackageNotFoundError:
        return
    if major >= 5 and 'mmpretrain.models' not in sys.modules:
        sys.meta_path.insert(0, _BeforeModels())
