"""The documentation site builds without a warning, and nothing in it leads nowhere (tools/docs.sh)."""
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
from tiny import ROOT

import mmseg_kd.functional
import mmseg_kd.losses

pytestmark = pytest.mark.docs


class Page(HTMLParser):
    """Targets and anchors of one page."""

    def __init__(self, text: str):
        super().__init__()
        self.targets, self.anchors = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors.update(value for key, value in attrs.items() if key in ('id', 'name') and value)
        self.targets += [attrs[key] for key in ('href', 'src') if attrs.get(key)]


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """Name of each page to the page, made by the command in tools/docs.sh."""
    folder = tmp_path_factory.mktemp('site')
    script = (ROOT / 'tools/docs.sh').read_text()
    command = re.search(r'^"\$python" (-m sphinx .*) docs/_build/html$', script, re.MULTILINE)
    process = subprocess.run([sys.executable, *shlex.split(command[1]), str(folder), '-d', str(folder / '.cache')],
                             cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    return folder, {path.relative_to(folder).as_posix(): Page(path.read_text(encoding='utf-8'))
                    for path in folder.rglob('*.html')}


def test_every_link_leads_somewhere(site):
    folder, pages = site
    checked = 0
    for name, page in pages.items():
        for target in page.targets:
            if re.match(r'(\w+:|//)', target):
                continue
            path, _, anchor = unquote(target).partition('#')
            path = (folder / name).parent.joinpath(path.partition('?')[0]).resolve() if path else folder / name
            assert path.exists(), f'{name} links {target}'
            if anchor and path.suffix == '.html':
                assert anchor in pages[path.relative_to(folder.resolve()).as_posix()].anchors, f'{name} links {target}'
            checked += 1
    assert checked > 5000


def test_every_public_name_is_in_the_reference(site):
    _, pages = site
    for room in (mmseg_kd.losses, mmseg_kd.functional):
        page = pages[f'api/{room.__name__.rpartition(".")[2]}.html']
        assert {f'{room.__name__}.{name}' for name in room.__all__} <= page.anchors


def test_every_config_is_on_a_page_of_the_zoo(site):
    _, pages = site
    zoo = [page for name, page in pages.items() if name.startswith('zoo/')]
    linked = {target.rpartition('/')[2] for page in zoo for target in page.targets}
    configs = {path.name for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts}
    # configs/seg/vanilla is a folder that the page of segmentors names.
    alone = {path.name for path in (ROOT / 'configs/seg/vanilla').glob('*.py')}
    assert len(configs) > 300 and configs - linked <= alone


def test_the_zoo_shows_the_settings_of_the_papers(site):
    folder, _ = site
    text = re.sub(r'<[^>]+>', ' ', (folder / 'zoo/cls.html').read_text(encoding='utf-8'))
    # DKD, table 7 of the paper's code: beta of ResNet32x4 to ResNet8x4; GDKD: w1 and w2.
    assert re.search(r'resnet32x4\s+resnet8x4\s+config\s+config\s+beta 8\s+w1 2, w2 8', text)


def test_the_site_can_be_searched(site):
    folder, _ = site
    index = (folder / 'searchindex.js').read_text(encoding='utf-8')
    assert '"getting_started"' in index and '"mmseg_kd.losses.DKDLoss' in index
