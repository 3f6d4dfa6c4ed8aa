"""What is misspelt in a config, before anything is built from it."""
import re

import pytest
from mmengine.config import Config
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS as MMSEG_MODELS
from tiny import command, distilled, run_config, segmentor

from mmseg_kd.config import read_config
from mmseg_kd.distillers import DistilledEncoderDecoder
from mmseg_kd.distillers.check import check_names_in_config
from mmseg_kd.losses import KDLoss
from mmseg_kd.registry import MODELS


def config(**changes):
    distill = dict(kd=dict(loss=dict(type='mmseg_kd.KDLoss')),
                   mse=dict(loss=dict(type='mmseg_kd.FeatureMSELoss'), on='backbone.layer3'))
    cfg = run_config(distilled(segmentor(), segmentor(), distill=distill), 'nowhere')
    cfg.merge_from_dict(changes)
    return cfg


@pytest.mark.parametrize('changes, message', [
    ({'model.distill.kd.loss.type': 'mmseg_kd.KDLos'},
     r"`distill.kd.loss.type`: there is no loss 'mmseg_kd.KDLos'; did you mean mmseg_kd.KDLoss\? There are: .*DKDLoss"),
    ({'model.distill.kd.loss.temperature': '4'}, r"`distill.kd.loss`: .*`?temperature`?.* got '4'"),
    ({'model.distill.kd.loss.temprature': 4.}, r"`distill.kd.loss`: .*temprature"),
    ({'model.distill.mse.on': 'backbone.layr3'},
     r"`distill.mse.on`: the student has nothing to read at 'backbone.layr3'.* \['backbone.layer3"),
    ({'model.distil': {}}, r'`model.distil`: there is no such setting; did you mean `model.distill`\?'),
    ({'model.dual_heads': {}}, r'did you mean `model.dual_head`\?'),
    ({'model.type': 'mmseg_kd.DistiledEncoderDecoder'}, r'`model.type`: .*did you mean DistilledEncoderDecoder\?'),
    ({'model.type': 'EncoderDecoder'}, r'`model.(teacher|distill)`: EncoderDecoder is not distilled'),
])
def test_the_message_names_the_setting_and_the_nearest(changes, message):
    check_names_in_config(config())
    with pytest.raises(ValueError, match=message) as caught:
        check_names_in_config(config(**changes))
    assert len(str(caught.value).splitlines()) <= 5


def test_losses_of_other_libraries_are_found_as_in_a_run():
    check_names_in_config(config(**{'model.distill.kd.loss.type': 'mmseg.DiceLoss'}))
    # Without a scope it is the config's own library's.
    check_names_in_config(config(**{'model.distill.kd.loss.type': 'DiceLoss'}))


def test_own_classes_pass():
    """Those that are registered here and in mmseg's registry, distilled or not; what they say of themselves counts."""
    names = ['mmseg_kd.OwnLoss', 'mmseg_kd.DistilledOwn', 'OwnDistilled', 'OwnMeanTeacher']
    for name in names:
        registry = MODELS if name.startswith('mmseg_kd.') else MMSEG_MODELS
        base = KDLoss if 'Loss' in name else DistilledEncoderDecoder if 'Distilled' in name else EncoderDecoder
        registry.register_module(name=name.rpartition('.')[2], module=type('Own', (base, ), dict(__module__='own')))
    try:
        check_names_in_config(config(**{'model.distill.kd.loss.type': names[0]}))
        for name in names[1:3]:
            check_names_in_config(config(**{'model.type': name}))
            with pytest.raises(ValueError, match='did you mean `model.dual_head`'):
                check_names_in_config(config(**{'model.type': name, 'model.dual_heads': {}}))
        check_names_in_config(config(**{'model.type': names[3], 'model.dual_heads': {}}))
    finally:
        for registry in (MODELS, MMSEG_MODELS):
            for name in names:
                registry._module_dict.pop(name.rpartition('.')[2], None)


def test_the_command_line_says_it_in_a_line(tmp_path):
    """Before the work dir is made; the time is that of the imports."""
    config(**{'model.distill.kd.loss.type': 'mmseg_kd.GDKLoss'}).dump(tmp_path / 'config.py')
    process = command('tools/train.py', tmp_path / 'config.py', '--work-dir', tmp_path / 'run', check=False)
    assert process.returncode and not (tmp_path / 'run').exists()
    said = [line for line in process.stdout.splitlines() if line.strip()]
    assert len(said) <= 10 and re.search('did you mean mmseg_kd.GDKDLoss', said[-1])


def test_a_config_of_mmseg_0x_is_recognised(tmp_path):
    old = dict(model=dict(type='EncoderDecoder'), data=dict(samples_per_gpu=2, train=dict(type='CityscapesDataset')),
               optimizer=dict(type='SGD', lr=0.01), runner=dict(type='IterBasedRunner', max_iters=80000))
    Config(old).dump(tmp_path / 'old.py')
    with pytest.raises(ValueError, match='`teacher.config`: this is a config of mmsegmentation 0.x'):
        read_config(str(tmp_path / 'old.py'))
