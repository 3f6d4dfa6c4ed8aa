"""``Distiller`` under Lightning and under Hugging Face's Trainer does what it does in a plain loop."""
import copy

import pytest
import torch
from torch import nn

from mmseg_kd.distillers import Distiller
from mmseg_kd.losses import DKDLoss, KDLoss

STEPS, BATCH = 4, 2
CLASSES = 5


def plain_loop(distiller, data):
    """The reference: a loop of three lines."""
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1, momentum=0.9)
    values = []
    for step in range(STEPS):
        distiller.set_time(step)
        batch = [torch.stack([each[name] for each in data[step * BATCH:][:BATCH]]) for name in ('inputs', 'labels')]
        loss, _ = distiller(*batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        distiller.update_averages()
        values.append(loss.item())
    return values


def same(one, other):
    return list(one) == list(other) and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.lightning
def test_a_lightning_module_trains_as_a_plain_loop_does(tmp_path):
    import lightning
    from torch.utils.data import DataLoader
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES))
    by_hand = Distiller(student, [nn.Linear(4, CLASSES), dict(type='ema')], dict(
        kd=dict(loss=KDLoss(), schedule=dict(warmup=3))))
    data = [dict(inputs=torch.randn(4), labels=torch.tensor(index % CLASSES)) for index in range(STEPS * BATCH)]

    class Module(lightning.LightningModule):

        def __init__(self):
            super().__init__()
            self.distiller, self.values = copy.deepcopy(by_hand), []
            # Copies of a model share its guests; these two train side by side.
            self.distiller.teachers = tuple(copy.copy(teacher) for teacher in self.distiller.teachers)
            self.distiller.teachers[1].model = copy.deepcopy(by_hand.teachers[1].model)

        def on_train_batch_start(self, batch, index):
            self.distiller.set_time(self.global_step)

        def training_step(self, batch, index):
            loss, parts = self.distiller(**batch)
            self.log_dict(parts)
            self.values.append(loss.item())
            return loss

        def on_train_batch_end(self, outputs, batch, index):
            self.distiller.update_averages()

        def configure_optimizers(self):
            return torch.optim.SGD(self.distiller.parameters(), lr=0.1, momentum=0.9)

    module = Module()
    trainer = lightning.Trainer(max_epochs=1, accelerator='cpu', logger=False, enable_progress_bar=False,
                                enable_model_summary=False, default_root_dir=tmp_path)
    trainer.fit(module, DataLoader(data, batch_size=BATCH))
    assert module.values == plain_loop(by_hand, data)
    assert same(module.distiller.state_dict(), by_hand.state_dict())
    assert set(trainer.logged_metrics) == {'loss_supervised', 'distill.loss_kd'}
    # A Lightning checkpoint has no frozen teacher, and all that goes on with the run.
    saved = torch.load(next(tmp_path.rglob('*.ckpt')), weights_only=True)['state_dict']
    assert same(saved, module.state_dict()) and len(saved) == 2 * len(student.state_dict()) + 1


@pytest.mark.hf
def test_hugging_faces_trainer_trains_as_a_plain_loop_does(tmp_path):
    from transformers import (
        SegformerConfig,
        SegformerForSemanticSegmentation,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    def network(width):
        return SegformerForSemanticSegmentation(SegformerConfig(
            num_labels=CLASSES, hidden_sizes=[width] * 4, depths=[1] * 4, num_attention_heads=[1] * 4,
            decoder_hidden_size=width, hidden_dropout_prob=0., attention_probs_dropout_prob=0., drop_path_rate=0.,
            classifier_dropout_prob=0.))

    torch.manual_seed(0)
    by_hand = Distiller(network(8), network(16).eval(), dict(dkd=dict(loss=DKDLoss(), schedule=dict(warmup=3))),
                        dual_head=None, ignore_index=255)
    distiller = copy.deepcopy(by_hand)
    data = [dict(inputs=torch.randn(3, 32, 32), labels=torch.randint(0, CLASSES, (32, 32)))
            for _ in range(STEPS * BATCH)]

    class Time(TrainerCallback):

        def on_step_begin(self, args, state, control, model, **kwargs):
            model.set_time(state.global_step)

    class InOrder(Trainer):

        def _get_train_sampler(self, *args):
            return torch.utils.data.SequentialSampler(data)

    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1, momentum=0.9)
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.)
    settings = TrainingArguments(
        str(tmp_path), max_steps=STEPS, per_device_train_batch_size=BATCH, use_cpu=True, report_to=[],
        disable_tqdm=True, max_grad_norm=0., save_steps=STEPS, prediction_loss_only=True)
    trainer = InOrder(distiller, settings, train_dataset=data, eval_dataset=data, callbacks=[Time()],
                      optimizers=(optimizer, constant))
    result = trainer.train()
    assert result.training_loss == pytest.approx(sum(plain_loop(by_hand, data)) / STEPS, rel=1e-6)
    assert same(distiller.state_dict(), by_hand.state_dict())
    from safetensors.torch import load_file
    saved = load_file(tmp_path / f'checkpoint-{STEPS}/model.safetensors')
    assert set(saved) == set(distiller.state_dict()) and all(name.startswith('student.') for name in saved)
    with torch.no_grad():
        distiller.eval()
        wanted = sum(float(distiller(*(torch.stack([each[name] for each in data]) for name in ('inputs', 'labels')))[1][
            part]) for part in ('loss_supervised', 'distill.loss_dkd'))
    assert trainer.evaluate()['eval_loss'] == pytest.approx(wanted, rel=1e-5)
