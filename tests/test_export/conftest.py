"""What the tests of the export share: one run of tools/train.py, a distilled student of every kind of extra."""
import cv2
import pytest
import torch
from mmengine.config import Config
from tiny import build, command, distilled, run_config, segmentor

#: The student, plain: all that its export may be.
STUDENT = segmentor(head='PSPHead', pool_scales=(1, 2, 3))


@pytest.fixture(scope='session')
def trained(mini_cityscapes, tmp_path_factory):
    """(config file, checkpoint) of a DHKD run of two steps whose student upsamples inside its loss."""
    folder = tmp_path_factory.mktemp('to_be_exported')
    torch.save(build(segmentor(16)).state_dict(), folder / 'teacher.pth')
    terms = dict(dhkd=dict(loss=dict(type='mmseg_kd.BinaryKLNormLoss'), on='aux_logits'))
    model = distilled(STUDENT, segmentor(16), folder / 'teacher.pth', terms) | dict(
        dual_head=dict(kind='nonlinear'), upsample_in_loss=True)
    run_config(model, mini_cityscapes, max_iters=2).dump(folder / 'config.py')
    command('tools/train.py', folder / 'config.py', '--work-dir', folder / 'run')
    return folder / 'config.py', folder / 'run/iter_2.pth'


@pytest.fixture(scope='session')
def student(trained):
    """The trained student, built by plain mmseg from :data:`STUDENT`."""
    model = build(STUDENT)
    model.load_state_dict(torch.load(trained[1], weights_only=False)['state_dict'])
    return model.eval()


@pytest.fixture(scope='session')
def pictures(mini_cityscapes):
    """Files of the validation pictures."""
    return sorted(map(str, mini_cityscapes.glob('leftImg8bit/val/*/*.png')))


@pytest.fixture
def rgb(pictures):
    """A real picture (3, 40, 96), RGB, 0 to 255: of another size than those that exports are made with."""
    picture = cv2.cvtColor(cv2.resize(cv2.imread(pictures[1]), (96, 40)), cv2.COLOR_BGR2RGB)
    return torch.from_numpy(picture).permute(2, 0, 1).float()


@pytest.fixture
def save_random(mini_cityscapes, tmp_path):
    """Write the config and the random weights of a model as a run leaves them: (Config, checkpoint)."""
    def save(model):
        checkpoint = tmp_path / 'random.pth'
        torch.save(dict(state_dict=build(model).state_dict(), meta={}), checkpoint)
        return run_config(model, mini_cityscapes), str(checkpoint)
    return save


@pytest.fixture
def config(trained):
    """The run's config, fresh."""
    return Config.fromfile(trained[0])
