"""Pages and metafiles of the segmentation zoo: they name the configs that exist, and repeat what these contain."""
import re
from pathlib import Path

import pytest
import yaml
from tiny import ROOT
from zoo import CONFIGS, DATA, LINK, METHODS, PAIRS, ZOO, front_page, models_of_mmseg, pair_of, parse, read, rows

FOLDERS = sorted({path.parent for path in CONFIGS})
PAGES = [ZOO / 'README.md', *(folder / 'README.md' for folder in FOLDERS)]
#: How the pages call what the file names abbreviate.
NETWORKS = {
    'pspnet-r101-d8': 'PSPNet R101', 'pspnet-r18-d8': 'PSPNet R18', 'deeplabv3-r101-d8': 'DeepLabV3 R101',
    'deeplabv3-r18-d8': 'DeepLabV3 R18', 'deeplabv3-mobilenet-v2-d8': 'DeepLabV3 MobileNetV2',
    'segformer-mit-b5': 'SegFormer B5', 'segformer-mit-b0': 'SegFormer B0', 'pidnet-l': 'PIDNet-L',
    'pidnet-s': 'PIDNet-S', 'upernet-swin-b': 'UPerNet Swin-B', 'upernet-r18': 'UPerNet R18'}
#: How the pages call a loss's settings.
SETTINGS = {key: key for key in ('alpha', 'beta', 'gamma', 'epsilon', 'cap', 'k', 'w0', 'w1', 'w2')} | dict(
    temperature='T', loss_weight='weight')
DATA_NAMES = {'cityscapes': 'Cityscapes', 'ade20k': 'ADE20K', 'coco-stuff164k': 'COCO-Stuff 164k'}


def links(page):
    return [link for link in LINK.findall(page.read_text()) if not link.startswith('http')]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.parent.name)
def test_every_link_leads_somewhere(page):
    assert links(page)
    assert [link for link in links(page) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize('folder', FOLDERS, ids=lambda folder: folder.name)
def test_a_page_lists_the_configs_of_its_folder(folder):
    listed = {}
    for row in rows(folder / 'README.md', 6):
        found = re.fullmatch(r'\[(\S+)\]\((\S+)\.py\)', row[0])
        if found:
            assert found[1] == found[2]
            listed[found[1]] = row[1:]
    assert set(listed) == {path.stem for path in folder.glob('*.py')}
    table = front_page()
    for path in folder.glob('*.py'):
        teacher, student, data = pair_of(path)
        row = table[teacher, student, data]
        assert listed[path.stem] == [NETWORKS[teacher], row[1], NETWORKS[student], row[4], DATA_NAMES[data]]


@pytest.mark.parametrize('folder', FOLDERS, ids=lambda folder: folder.name)
def test_a_page_shows_the_settings_as_they_are(folder):
    text = (folder / 'README.md').read_text()
    shown = re.findall(r'`(configs/_base_/distill/\w+\.py)`:\n\n```python\n(.*?)```', text, re.DOTALL)
    assert [name for name, _ in shown] == [f'configs/_base_/distill/{folder.name}.py']
    for name, block in shown:
        assert block == (ROOT / name).read_text()


@pytest.mark.parametrize('folder', FOLDERS, ids=lambda folder: folder.name)
def test_the_column_of_our_settings_is_that_of_the_configs(folder):
    terms = read(next(path for path in CONFIGS if path.parent == folder and 'align' not in path.name)).model.distill
    settings = {}
    for name, term in terms.items():
        title = 'ReviewKD' if name == 'review' else name.upper()
        of_term = {SETTINGS[key]: value for key, value in term.loss.items() if key != 'type'}
        of_term['warm-up'] = term.get('schedule', {}).get('warmup', 'none')
        of_term['width of the fusion'] = term.get('adapter', {}).get('width')
        settings |= {f'{title}: {key}' if len(terms) > 1 else key: value for key, value in of_term.items()}
    shown = {row[0]: row[2] for row in rows(folder / 'README.md', 3)}
    numbers = {key: re.match(r'[\d.]+|none', text) for key, text in shown.items() if key in settings}
    assert {key: found and found[0] for key, found in numbers.items()} == {
        key: value if value == 'none' else f'{value:g}' for key, value in settings.items() if key in shown}
    # What is not shown does nothing: a weight of 1, no warm-up, no fusion.
    assert {value for key, value in settings.items() if key not in shown} <= {1., 'none', None}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.parent.name)
def test_a_page_names_commands_of_files_that_exist(page):
    text = page.read_text().replace('\\\n', ' ')
    commands = re.findall(r'^    (?:bash|python) (\S+) (\S+) (.*)$', text, re.MULTILINE)
    assert [command[0] for command in commands] == ['tools/dist_train.sh', 'tools/dist_train.sh', 'tools/test.py']
    assert all((ROOT / tool).is_file() and (ROOT / config).is_file() for tool, config, _ in commands)
    name = parse(Path(commands[0][1]))
    assert [command[2].split()[-1] for command in commands] == [
        name['gpus'], '--resume', f'work_dirs/{Path(commands[0][1]).stem}/iter_{name["kiloiters"]}000.pth']


def test_the_front_page_has_every_method_on_every_pair():
    page = ZOO / 'README.md'
    own = {link for link in links(page) if not link.startswith('..')}
    assert {link for link in own if link.endswith('.py')} == {str(path.relative_to(ZOO)) for path in CONFIGS}
    assert {link for link in own if link.endswith('.md')} == {f'{folder.name}/README.md' for folder in FOLDERS}
    # A column is a pair, a row a method.
    for row in rows(page, len(PAIRS) + 1):
        cells = [LINK.search(cell) for cell in row]
        if all(cells):
            files = [parse(Path(cell[1])) for cell in cells[1:]]
            assert {file['method'] for file in files} == {row[0][1:].partition(']')[0]}
            assert [(file['teacher'], file['student'], file['data']) for file in files] == list(PAIRS)


def test_the_front_page_repeats_what_mmseg_reports():
    table = front_page()
    assert list(table) == list(PAIRS)
    for (teacher, student, data), row in table.items():
        path = next(path for path in CONFIGS if pair_of(path) == (teacher, student, data))
        config, name = read(path), parse(path)
        assert row[0] == NETWORKS[teacher] and row[3] == NETWORKS[student] and row[6] == DATA_NAMES[data]
        assert row[7] == '{gpus}xb{batch}-{kiloiters}k, {height}x{width}'.format(**name)
        assert row[2] == reported(config.model.teacher.config.removeprefix('mmseg::'))
        # A student whose schedule is borrowed from another network has no result.
        own = student != 'pspnet-r18-d8' or data == 'cityscapes'
        assert row[5] == (reported(f'{PAIRS[teacher, student, data]}.py') if own else '-')


def reported(config):
    """mIoU of a config in mmseg's metafiles, or a dash."""
    entry = models_of_mmseg().get(f'configs/{config}')
    if entry is None:
        return '-'
    results = entry['Results'] if isinstance(entry['Results'], list) else [entry['Results']]
    return f'{results[0]["Metrics"]["mIoU"]:.2f}'


@pytest.mark.parametrize('folder', FOLDERS, ids=lambda folder: folder.name)
def test_a_metafile_has_the_configs_of_its_folder(folder):
    metafile = yaml.safe_load((folder / 'metafile.yml').read_text())
    collection, = metafile['Collections']
    assert (ROOT / collection['README']) == folder / 'README.md'
    assert collection['Name'] == (folder / 'README.md').read_text().splitlines()[0].removeprefix('# ')
    assert sorted(model['Config'] for model in metafile['Models']) == sorted(
        str(path.relative_to(ROOT)) for path in folder.glob('*.py'))
    for model in metafile['Models']:
        path = ROOT / model['Config']
        name = parse(path)
        # Nothing was trained, nothing is published.
        assert set(model) == {'Name', 'In Collection', 'Config', 'Metadata', 'Framework'}
        assert model['Name'] == path.stem and model['In Collection'] == collection['Name']
        metadata = model['Metadata']
        assert metadata['Training Data'] == DATA_NAMES[name['data']]
        assert metadata['Training Data'] in collection['Metadata']['Training Data']
        assert metadata['Batch Size'] == int(name['gpus']) * int(name['batch'])
        assert metadata['Architecture'] == [NETWORKS[name['student']]]
        teacher = models_of_mmseg()[f'configs/{read(path).model.teacher.config.removeprefix("mmseg::")}']
        assert metadata['Teacher'] == teacher['Name']


def test_the_tables_of_these_tests_are_complete():
    assert set(DATA_NAMES) == set(DATA) and set(NETWORKS) == {name for pair in PAIRS for name in pair[:2]}
    assert {parse(path)['method'] for path in CONFIGS} == set(METHODS)
