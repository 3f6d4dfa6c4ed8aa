"""The report: one page from work dirs, its figures against mmseg's own evaluation, and in a headless browser."""
import base64
import re
import shutil
import subprocess
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import tiny
import torch
from mmengine.config import Config

from mmseg_kd.evaluation.members import cast
from mmseg_kd.visualization.report_sections import cost_of_training

TITLES = ['Numbers', 'Images', 'Loss maps', 'Training', 'Classes', 'Boundaries', 'Confusions',
          'Gradients and loss parts', 'Calibration', 'Distance to the teacher', 'Top-k mass']
FIGURES = ['boundary_iou', 'calibration', 'class_iou', 'confusion', 'curves', 'images', 'logit_distance', 'loss_maps',
           'statistics', 'topk_mass']

PALETTE = [[7 * index, 11 * index, 13 * index] for index in range(19)]
#: A name of a folder, and of classes, that would run a script.
MARKUP = '<script>$_{$'


def spread(model, seed):
    """Weights of a classifier that prefers different classes at different pixels."""
    torch.manual_seed(seed)
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    return dict(state_dict=model.state_dict())


@pytest.fixture(scope='module')
def runs(mini_cityscapes, tmp_path_factory):
    """Work dirs of a teacher, a student alone and two distilled ones, with weights at random."""
    root = tmp_path_factory.mktemp('runs')
    student, teacher = tiny.segmentor(), tiny.segmentor(16, 'PSPHead')
    statistics = {'distill.target_dkd': 0.5, 'distill.non_target_dkd': 0.2, 'distill.supervised_cosine_dkd': -0.5,
                  'distill.agreement_dkd': 0.6, 'distill.teacher_confidence_dkd': 0.8}
    dkd = dict(dkd=dict(loss=dict(type='mmseg_kd.DKDLoss', temperature=4.)))
    dhkd = dict(dhkd=dict(loss=dict(type='mmseg_kd.BinaryKLNormLoss'), on='aux_logits'))
    models = dict(
        teacher=teacher, alone=student, dkd=tiny.distilled(student, teacher, root / 'teacher/iter_4.pth', dkd),
        dhkd=tiny.distilled(student, teacher, root / 'teacher/iter_4.pth', dhkd) | dict(dual_head=dict(kind='linear')))
    for seed, (name, model) in enumerate(models.items()):
        records = [{'loss': 3., 'decode.loss_ce': 2., 'time': 0.1, 'step': 2}, dict(mIoU=5., step=2),
                   {'loss': 2., 'decode.loss_ce': 1., 'time': 0.1, 'step': 4}, dict(mIoU=7., step=4)]
        if name == 'dkd':
            records += [statistics | dict(step=2), statistics | dict(step=4)]
        config = tiny.run_config(model, mini_cityscapes)
        config.val_dataloader.dataset.update(
            type='BaseSegDataset', img_suffix='_leftImg8bit.png', seg_map_suffix='_gtFine_labelTrainIds.png',
            metainfo=dict(classes=[f'{MARKUP}{index}' for index in range(19)], palette=PALETTE))
        tiny.write_run(root / name, config, records)
        plain = teacher if name == 'teacher' else student
        torch.save(spread(tiny.build(plain, seed), seed), root / name / 'iter_4.pth')
    return root


@pytest.fixture(scope='module')
def report(runs, tmp_path_factory):
    """The page's text and its folder."""
    out = tmp_path_factory.mktemp('report')
    shutil.copytree(runs / 'dhkd', runs / MARKUP)
    tiny.command('tools/analysis/report.py', f'T={runs}/teacher', f'student <1>={runs}/alone', f'DKD={runs}/dkd',
                 f'DHKD={runs}/{MARKUP}', '--out', out, '--images', 1)
    return (out / 'report.html').read_text(), out


class Reader(HTMLParser):
    """Checks that elements close in order; keeps what the page asks for, its headings and its table."""

    def __init__(self):
        super().__init__()
        self.open, self.references, self.text, self.figures, self.ids = [], [], {}, 0, []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        assert not [name for name in attributes if name.startswith('on')]
        self.references += [attributes[key] for key in ('src', 'href', 'xlink:href') if key in attributes]
        self.ids += [attributes['id']] if 'id' in attributes else []
        self.figures += tag == 'svg'
        if tag not in ('meta', 'img', 'br', 'link'):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.text.setdefault(self.open[-1], []).append(data)


@pytest.fixture(scope='module')
def page(report):
    reader = Reader()
    reader.feed(report[0])
    assert not reader.open
    return reader


def test_the_page_needs_no_other_file(report, page):
    html, _ = report
    outside = [each for each in page.references if not each.startswith(('#', 'data:image/png;base64,'))]
    assert not outside and 'url(http' not in html and '@import' not in html and '<script' not in html
    assert len(set(page.ids)) == len(page.ids)
    assert {each[1:] for each in page.references if each.startswith('#')} <= set(page.ids)


def test_every_section_and_figure_is_there(report, page):
    _, out = report
    assert page.text['small'][4:] == TITLES  # the first four are remarks on the scores
    assert sorted(path.stem for path in out.glob('*.png')) == FIGURES
    assert page.figures == 8
    # Names are text, whatever they hold: of runs, checkpoints, classes.
    assert 'student <1>' in page.text['span'] and f'{MARKUP}0' in ''.join(page.text['text'])
    assert [each for each in page.text['code'] if each.endswith(f'{MARKUP}/iter_4.pth')]


def predictions(runs, name, mini_cityscapes):
    """Label maps, ground truth and image names of a run's plain model, by mmseg."""
    from mmengine.registry import DATASETS
    config = tiny.run_config(tiny.segmentor(16, 'PSPHead') if name == 'teacher' else tiny.segmentor(), mini_cityscapes)
    model = tiny.build(config.model).eval()
    model.load_state_dict(torch.load(runs / name / 'iter_4.pth')['state_dict'])
    dataset = DATASETS.build({**config.val_dataloader.dataset, '_scope_': 'mmseg'})
    for item in dataset:
        sample = model.val_step(dict(inputs=[item['inputs']], data_samples=[item['data_samples']]))[0]
        yield (sample.pred_sem_seg.data[0], sample.gt_sem_seg.data[0],
               item['data_samples'].img_path.rsplit('/', 1)[1].removesuffix('.png'))


def test_scores_are_those_of_mmseg(runs, page, mini_cityscapes):
    from mmseg.evaluation.metrics import IoUMetric
    for position, name in enumerate(('teacher', 'alone', 'dkd', 'dhkd')):
        areas = [IoUMetric.intersect_and_union(found, truth, 19, 255)
                 for found, truth, _ in predictions(runs, name, mini_cityscapes)]
        intersection, union = (sum(each[index] for each in areas) for index in (0, 1))
        assert page.text['b'][position] == f'{100 * np.nanmean((intersection / union).numpy()):.2f}'


def test_shows_the_images_that_changed_most(runs, page, report, mini_cityscapes):
    change = {}
    for (one, truth, name), (other, _, _) in zip(predictions(runs, 'alone', mini_cityscapes),
                                                 predictions(runs, 'dkd', mini_cityscapes), strict=True):
        valid = truth != 255
        change[name] = 100 * ((other == truth)[valid].double().mean() - (one == truth)[valid].double().mean()).item()
    order = sorted(change, key=change.get)
    expected = [name for name in (order[-1], order[0]) if (change[name] > 0) == (name == order[-1])]
    captions = [f'{change[name]:+.1f} points of pixels right: {name}' for name in expected]
    assert captions and [each for each in page.text['p'] if 'pixels right: ' in each] == captions
    # image, ground truth, three models, what changed; then the image and two maps of DKD's parts.
    pictures = [each for each in page.references if each.startswith('data:')]
    assert len(pictures) == len(expected) * (6 + 3)
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(pictures[0].split(',')[1]), np.uint8), cv2.IMREAD_COLOR)
    path, = mini_cityscapes.glob(f'leftImg8bit/val/*/{expected[0]}.png')
    assert (shown == cv2.imread(str(path))).all()


def test_curves_of_the_hook(page):
    assert 'Distillation pulls against the labels in 100 % of the recorded steps' in page.text['h2']


BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)


@pytest.mark.skipif(BROWSER is None, reason='no Chromium on this machine')
def test_in_a_headless_browser(report, tmp_path):
    _, out = report
    grounds = []
    for name, options in dict(light=[], dark=['--blink-settings=preferredColorScheme=0'], narrow=[]).items():
        size = '500,1200' if name == 'narrow' else '1400,1200'
        process = subprocess.run(
            [BROWSER, '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--enable-logging=stderr',
             f'--user-data-dir={tmp_path}', f'--window-size={size}', *options, f'--screenshot={tmp_path}/{name}.png',
             f'file://{out}/report.html'], capture_output=True, text=True, timeout=60)
        assert 'CONSOLE' not in process.stderr
        picture = cv2.imread(str(tmp_path / f'{name}.png'))
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 200
        grounds.append(picture[5, 5].tolist())
    assert grounds == [[255, 255, 255], [29, 24, 20], [255, 255, 255]]


def test_a_teacher_that_was_only_tested(runs, tmp_path):
    """As the quickstart's is: known by its checkpoint; no iterations, no time, no memory, and no curve."""
    folder = tmp_path / 'tested/20260101_000000'
    (folder / 'vis_data').mkdir(parents=True)
    config = tiny.run_config(tiny.segmentor(16, 'PSPHead'), '')
    config.load_from = str(runs / 'teacher/iter_4.pth')
    config.dump(folder / 'vis_data/config.py')
    (folder / f'{folder.name}.json').write_text('{"mIoU": 50.0}')
    members = cast([f'{runs}/dkd', f'{runs}/alone', f'T={tmp_path}/tested'])
    assert [(member.name, member.role) for member in members] == [
        ('T', 'teacher'), ('alone', 'alone'), ('dkd', 'distilled')]
    assert cost_of_training(members[0].run) == ['', '', '']
    assert cost_of_training(members[1].run) == ['4', '0.100', '']


def test_the_teacher_is_found_without_its_work_dir(runs):
    members = cast([f'{runs}/dkd', f'{runs}/alone'])
    assert [(member.name, member.role) for member in members] == [
        ('teacher', 'teacher'), ('alone', 'alone'), ('dkd', 'distilled')]
    assert members[0].checkpoint == runs / 'teacher/iter_4.pth' and members[0].run is None


def test_runs_that_were_moved(runs, tmp_path):
    for name in ('teacher', 'dkd'):
        shutil.copytree(runs / name, tmp_path / name)
    config, = tmp_path.glob('dkd/*/vis_data/config.py')
    config.write_text(config.read_text().replace(str(runs), '/gone'))
    assert cast([f'{tmp_path}/dkd', f'{tmp_path}/teacher'])[0].checkpoint == tmp_path / 'teacher/iter_4.pth'
    with pytest.raises(ValueError, match="is not there any more; add the teacher's own work dir"):
        cast([f'{tmp_path}/dkd'])
    several = tiny.run_config(dict(type='EncoderDecoder', decode_head={}, teacher=[{}, {}]), '')
    tiny.write_run(tmp_path / 'several', several, [dict(loss=1., time=1., step=1), dict(mIoU=1., step=1)])
    with pytest.raises(ValueError, match='the report compares with one trained teacher'):
        cast([f'{tmp_path}/several'])
    with pytest.raises(ValueError, match='distilled runs of one teacher'):
        cast([f'{tmp_path}/dkd', f'{runs}/dhkd'])


@pytest.mark.parametrize('items, message', [
    (['{0}/alone', '{0}/teacher'], 'at least one distilled run'),
    (['a={0}/dkd', 'a={0}/dhkd'], 'two have one name'),
    (['{0}/classifier', '{0}/dkd'], "['classifier'] have no `model.decode_head`"),
    (['{0}/nowhere'], 'expected the work dir of a training run')])
def test_refusals(runs, items, message):
    if not (runs / 'classifier').exists():
        tiny.write_run(runs / 'classifier', Config(dict(model=dict(type='ImageClassifier'))), [
            dict(loss=1., time=1., step=1), {'accuracy/top1': 3., 'step': 1}])
    with pytest.raises(ValueError, match=re.escape(message)):
        cast([item.format(runs) for item in items])
