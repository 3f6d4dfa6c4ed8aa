"""Links of the repository's Markdown files, turned into links of the site while Sphinx reads them.

A page says ``[zoo](../configs/seg/README.md)``, which leads somewhere on GitHub and in an editor. On the site that file
is the page ``zoo/seg/README``; a file that is not a page is linked in the repository, where its address is known
(``MMSEG_KD_REPOSITORY``, Read the Docs' ``READTHEDOCS_GIT_CLONE_URL`` or git's ``origin``), or offered as a download.
"""
import os
import posixpath
import re
import subprocess
from pathlib import Path

from sphinx.util.logging import getLogger

from .generated import write

__all__ = ['ROOT', 'copied_pages', 'repository_address', 'rewrite', 'setup', 'write_copies']

ROOT = Path(__file__).resolve().parents[2]
LOGGER = getLogger(__name__)
LINK = re.compile(r'(?<!\\)(\]\()([^)\s]+)(\))')
FENCE = re.compile(r'^(```|~~~).*?^\1[ \t]*$', re.MULTILINE | re.DOTALL)


def copied_pages() -> dict[str, str]:
    """Files outside docs/ that are pages of the site: path in the repository to name of the page."""
    pages = {'README.md': 'index', 'CONTRIBUTING.md': 'project/contributing', 'CHANGELOG.md': 'project/changelog'}
    for path in sorted((ROOT / 'configs').rglob('README.md')):
        folder = path.parent.relative_to(ROOT / 'configs').as_posix()
        pages[f'configs/{folder}/README.md'] = f'zoo/{folder}/README'
    return pages


def repository_address() -> str | None:
    """Where the repository's files can be read on the web, without a slash at its end; None if nobody says."""
    address = os.environ.get('MMSEG_KD_REPOSITORY') or os.environ.get('READTHEDOCS_GIT_CLONE_URL')
    if not address:
        origin = subprocess.run(['git', '-C', str(ROOT), 'remote', 'get-url', 'origin'], capture_output=True, text=True)
        address = origin.stdout.strip()
    found = re.match(r'(?:https://|git@)(github\.com|gitlab\.com)[:/](.+?)(?:\.git)?/?$', address)
    return f'https://{found[1]}/{found[2]}' if found else None


def rewrite(text: str, home: str, page: str) -> str:
    """The text of one page with the links that the site needs.

    Args:
        text: Markdown.
        home: The file it comes from, from the root of the repository: its links are relative to this.
        page: Its page on the site.

    A link that leads nowhere is a warning.
    """
    pages = copied_pages()
    address = repository_address()
    here = posixpath.dirname(page)

    def site_link(found: re.Match) -> str:
        target, hash_, anchor = found[2].partition('#')
        if not target or ':' in target:
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(home), target))
        if path.startswith('..') or not (ROOT / path).exists():
            LOGGER.warning(f'{home}: the link {found[2]!r} leads to no file of the repository.')
            return found[0]
        folder = (ROOT / path).is_dir()
        if folder and f'{path}/README.md' in pages:
            path, folder = f'{path}/README.md', False
        if path in pages:
            name = pages[path] + '.md'
        elif path.startswith('docs/') and not folder:
            name = path.removeprefix('docs/')
        elif address:
            return f'{found[1]}{address}/{"tree" if folder else "blob"}/main/{path}{hash_}{anchor}{found[3]}'
        elif path.startswith('configs') and folder:
            name = 'zoo/index.md'
        elif folder:
            return f'{found[1]}#{found[3]}'
        else:
            name = f'../{path}'
        return f'{found[1]}{posixpath.relpath(name, here or ".")}{hash_}{anchor}{found[3]}'

    # A folder that cannot be shown anywhere is named, not linked.
    def unlinked(line: str) -> str:
        return re.sub(r'\[([^\]\[]*)\]\(#\)', r'\1', LINK.sub(site_link, line))

    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [unlinked(text[end:fence.start()]), fence[0]]
        end = fence.end()
    return ''.join([*parts, unlinked(text[end:])])


def read_page(app, page: str, source: list[str]) -> None:
    """Sphinx's ``source-read``: bring in what lies outside docs/, mend the links."""
    path = Path(app.env.doc2path(page))
    if path.suffix != '.md' or page.startswith('api/'):
        return
    homes = {name: home for home, name in copied_pages().items()}
    if page == 'index':  # the README, then the table of contents
        source[0] = rewrite((ROOT / 'README.md').read_text(encoding='utf-8'), 'README.md', page) + '\n' + source[0]
    else:
        # Tables of results are reached from the page that discusses them.
        orphan = '---\norphan: true\n---\n' if page.startswith('results/') else ''
        if page == 'getting_started' and (repository_address() or '').startswith('https://github.com/'):
            where = repository_address().replace('https://github.com/', 'https://colab.research.google.com/github/')
            source[0] = source[0].replace(
                '](tutorial.ipynb)', f'](tutorial.ipynb) ([open it in Colab]({where}/blob/main/docs/tutorial.ipynb))')
        source[0] = orphan + rewrite(source[0], homes.get(page, f'docs/{page}.md'), page)


def write_copies() -> None:
    """Put the files outside docs/ where Sphinx finds them."""
    for home, page in copied_pages().items():
        if page != 'index':
            write(ROOT / 'docs' / f'{page}.md', (ROOT / home).read_text(encoding='utf-8'))


def setup(app) -> None:
    app.connect('source-read', read_page)
