"""The documentation site: ``bash tools/docs.sh`` builds it. Pages are Markdown (MyST), the theme is furo."""
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]

from _extension import generated, links, reference, zoo  # noqa: E402

from mmseg_kd.version import __version__  # noqa: E402

project = 'mmseg_kd'
author = 'the authors of mmseg_kd'
copyright = f'2026, {author}'
version = release = __version__
extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.autosummary', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode',
              'sphinx_copybutton', '_extension.links', '_extension.reference']
exclude_patterns = ['_build', '_extension']

myst_enable_extensions = ['dollarmath', 'colon_fence']
myst_heading_anchors = 4  # [text](page.md#a-heading), as on GitHub
nb_execution_mode = 'off'  # the tutorial keeps what it printed; a test runs it

autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
autodoc_member_order = 'bysource'
autodoc_mock_imports = reference.missing_packages()
autosummary_generate = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = 'furo'
html_title = f'mmseg_kd {__version__}'
html_static_path = ['_static']
html_css_files = ['site.css']
html_theme_options = dict(navigation_with_keys=True)
copybutton_exclude = '.linenos, .gp, .go'

# Pages that are made from what lies elsewhere in the repository.
links.write_copies()
reference.write_reference_pages(DOCS / 'api')
zoo.write_zoo_pages(DOCS / 'zoo')
generated.remove_stale(DOCS / 'api', DOCS / 'zoo', DOCS / 'project')
