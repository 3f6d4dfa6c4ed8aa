"""Does a second classifier do what the DHKD paper says? Four ways to train one student, and how the gradients agree.

    python tools/analysis/dual_head_conflict.py [--tasks cls seg] [--seeds 0 1] [--weights 1 0.1] [--out work_dirs/...]

Cross-entropy alone; a logit-level loss (BinaryKL-Norm) alone; both on one head; both on two heads. While each trains,
the cosine between the two losses' gradients is measured in the classifier and in everything below it, every few
iterations and whether or not both are trained. On a generated classification task ('cls') and on mini-Cityscapes
('seg', made if absent). Ends with one figure (conflict.png), one table (conflict.md) and the numbers (conflict.json).
"""
import argparse
import json
import logging
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn import functional as F

import mmseg_kd  # noqa: F401 (makes 'mmseg::' resolve)
from mmseg_kd.config import student_config
from mmseg_kd.distillers.dual_head import auxiliary_classifier
from mmseg_kd.functional import binary_kl_norm_loss
from mmseg_kd.taps import module_calls

ROOT = Path(__file__).resolve().parents[2]


class ToyImages:
    """Noisy, shifted, mixed templates: 20 classes of 16x16 grey pictures, hard enough that a small network stays below
    100 %.

    Args:
        number: How many pictures.
        seed: Of their draw; the templates are always the same.
    """

    num_classes = 20

    def __init__(self, number: int, seed: int):
        templates = F.interpolate(
            torch.randn(self.num_classes, 1, 6, 6, generator=torch.Generator().manual_seed(0)), size=(20, 20),
            mode='bicubic')
        generator = torch.Generator().manual_seed(seed)

        def draw(high, size=(number,)):
            return torch.randint(high, size, generator=generator)
        self.labels, other = draw(self.num_classes), draw(self.num_classes)
        # Another class shines through, which makes classes similar to each other, as a teacher can tell.
        share = 0.45 * torch.rand(number, 1, 1, 1, generator=generator)
        mixed = (1 - share) * templates[self.labels] + share * templates[other]
        rows, columns = draw(5), draw(5)
        images = torch.stack([image[:, y:y + 16, x:x + 16]
                              for image, y, x in zip(mixed, rows.tolist(), columns.tolist(), strict=True)])
        self.images = images + 0.8 * torch.randn(images.shape, generator=generator)


class ToyNetwork(nn.Module):
    """Three convolutions, average pooling and a linear classifier.

    Args:
        width: Channels of the first convolution.
        num_classes: Outputs.
    """

    def __init__(self, width: int, num_classes: int = ToyImages.num_classes):
        super().__init__()
        layers, channels = [], 1
        for index in range(3):
            layers += [nn.Conv2d(channels, width << index, 3, 1 if index == 0 else 2, 1, bias=False),
                       nn.BatchNorm2d(width << index), nn.ReLU()]
            channels = width << index
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.main = nn.Linear(channels, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Input (N, D) of the classifier from images (N, 1, 16, 16)."""
        return self.trunk(images)


class Variant(NamedTuple):
    """One way to train: which losses, on how many heads, the logit loss with which weight."""

    words: str
    losses: str
    heads: int = 1
    weight: float = 1.


def variants(weights: list[float]) -> list[Variant]:
    """The four ways; those with both losses once for every weight."""
    both = [Variant(f'both, {words} head{"s" * (heads > 1)}, weight {weight:g}', 'both', heads, weight)
            for weight in weights for heads, words in ((1, 'one'), (2, 'two'))]
    return [Variant('cross-entropy alone', 'ce'), Variant('logit loss alone', 'logit'), *both]


class Classification:
    """The generated task: a narrow network learns from a wide one."""

    name, metric, learning_rate = 'cls', 'accuracy', 2e-3

    def __init__(self, args):
        self.iterations = args.cls_iterations
        self.data, self.test = ToyImages(2000, seed=1), ToyImages(4000, seed=2)

    def network(self, is_teacher: bool) -> nn.Module:
        return ToyNetwork(32 if is_teacher else 16)

    def batches(self, seed: int):
        generator = torch.Generator().manual_seed(seed)
        while True:
            index = torch.randint(len(self.data.labels), (64,), generator=generator)
            yield self.data.images[index], self.data.labels[index]

    @torch.no_grad()
    def score(self, network: nn.Module) -> float:
        predicted = network.eval().main(network.features(self.test.images)).argmax(1)
        return 100 * (predicted == self.test.labels).float().mean().item()

    @staticmethod
    def at_labels(logits: Tensor, labels: Tensor) -> Tensor:
        return logits


class Segmentation:
    """Mini-Cityscapes: the quickstart's student learns from its teacher."""

    name, metric, learning_rate = 'seg', 'mIoU', 1e-2

    def __init__(self, args):
        self.iterations = args.seg_iterations
        root = Path(args.data or args.out / 'mini_cityscapes')
        if not root.exists():
            from mmseg_kd.datasets import generate_mini_cityscapes
            generate_mini_cityscapes(root, num_train=240, num_val=60, size=(64, 128), seed=0)
        # Data, student and teacher of the quickstart's DHKD, whichever it has.
        path, = (ROOT / 'configs/demo').glob('dhkd_*mini-cityscapes*.py')
        self.config = Config.fromfile(path)
        self.student = student_config(self.config.model)
        self.teacher = Config.fromfile(ROOT / self.config.model.teacher.config).model
        for loader in (self.config.train_dataloader, self.config.val_dataloader):
            loader.dataset.data_root = str(root)

    def network(self, is_teacher: bool) -> nn.Module:
        return SegmentationNetwork(self.teacher if is_teacher else self.student)

    def _load(self, loader, seed: int):
        with DefaultScope.overwrite_default_scope('mmseg'):
            return Runner.build_dataloader(loader, seed=seed)

    def batches(self, seed: int):
        preprocess = self.network(False).segmentor.data_preprocessor
        for data in self._load(self.config.train_dataloader, seed):
            data = preprocess(data, True)
            yield data['inputs'], torch.stack([sample.gt_sem_seg.data[0] for sample in data['data_samples']])

    @torch.no_grad()
    def score(self, network: nn.Module) -> float:
        network.eval()
        counts = torch.zeros(19, 19)
        for data in self._load(self.config.val_dataloader, 0):
            data = network.segmentor.data_preprocessor(data, False)
            labels = data['data_samples'][0].gt_sem_seg.data
            predicted = self.at_labels(network.main(network.features(data['inputs'])), labels).argmax(1)
            valid = labels != 255
            counts += torch.bincount(19 * labels[valid] + predicted[valid], minlength=19**2).view(19, 19)
        union = counts.sum(0) + counts.sum(1) - counts.diag()
        return 100 * (counts.diag() / union)[union > 0].mean().item()

    @staticmethod
    def at_labels(logits: Tensor, labels: Tensor) -> Tensor:
        return F.interpolate(logits, size=labels.shape[1:], mode='bilinear', align_corners=False)


class SegmentationNetwork(nn.Module):
    """An mmseg segmentor as features and a classifier."""

    def __init__(self, config: dict):
        super().__init__()
        from mmseg.registry import MODELS
        with DefaultScope.overwrite_default_scope('mmseg'):
            self.segmentor = MODELS.build(config)
            self.segmentor.init_weights()

    @property
    def main(self) -> nn.Module:
        return self.segmentor.decode_head.conv_seg

    def features(self, images: Tensor) -> Tensor:
        with module_calls({}, [self.main]) as calls:
            self.segmentor._forward(images)
        return calls.arguments[0][0].first


def optimizer_of(modules: list[nn.Module], task, iterations: int):
    parameters = {parameter: None for module in modules for parameter in module.parameters()}
    optimizer = torch.optim.AdamW(list(parameters), lr=task.learning_rate, weight_decay=1e-4)
    return optimizer, torch.optim.lr_scheduler.PolynomialLR(optimizer, iterations, power=0.9)


def train_teacher(task, iterations: int) -> nn.Module:
    torch.manual_seed(100)
    teacher = task.network(True).train()
    optimizer, schedule = optimizer_of([teacher], task, iterations)
    for _, (images, labels) in zip(range(iterations), task.batches(100), strict=False):
        logits = task.at_labels(teacher.main(teacher.features(images)), labels)
        optimizer.zero_grad()
        F.cross_entropy(logits, labels, ignore_index=255).backward()
        optimizer.step()
        schedule.step()
    return teacher.eval().requires_grad_(False)


def cosine(first: list, second: list) -> float:
    first, second = (torch.cat([gradient.flatten() for gradient in gradients]) for gradients in (first, second))
    return F.cosine_similarity(first, second, dim=0).item()


def train_student(task, teacher: nn.Module, variant: Variant, seed: int, args) -> dict:
    """One run: its score and, at the measured iterations, the cosines of the two gradients."""
    torch.manual_seed(seed)
    student = task.network(False).train()
    second = auxiliary_classifier(dict(kind='linear'), student.main) if variant.heads == 2 else student.main
    optimizer, schedule = optimizer_of([student, second], task, task.iterations)
    head = set(student.main.parameters())
    below = [parameter for parameter in student.parameters() if parameter not in head]
    curves = dict(iteration=[], classifier=[], below=[])
    for iteration, (images, labels) in zip(range(task.iterations), task.batches(seed), strict=False):
        features = student.features(images)
        with torch.no_grad():
            target = task.at_labels(teacher.main(teacher.features(images)), labels)
        supervised = F.cross_entropy(task.at_labels(student.main(features), labels), labels, ignore_index=255)
        distillation = binary_kl_norm_loss(
            task.at_labels(second(features), labels), target, labels, temperature=args.temperature)
        if iteration % args.every == 0:
            curves['iteration'].append(iteration)
            for name, parameters in (('classifier', list(head)), ('below', below)):
                if name == 'classifier' and variant.heads == 2:
                    continue
                pair = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in (supervised, distillation)]
                curves[name].append(cosine(*pair))
        loss = dict(ce=supervised, logit=distillation).get(variant.losses, supervised + variant.weight * distillation)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return dict(task=task.name, variant=variant.words, seed=seed, score=task.score(student), **curves)


def table(runs: list[dict], teachers: dict[str, float]) -> str:
    """Markdown: score, mean cosines over the training and how often they were negative."""
    lines = ['| task | trained with | score | cosine in the classifier | cosine below it | conflicts below it |',
             '| --- | --- | --- | --- | --- | --- |']
    for task, teacher in teachers.items():
        lines.append(f'| {task} | (teacher) | {teacher:.1f} | | | |')
        for words in dict.fromkeys(run['variant'] for run in runs):
            chosen = [run for run in runs if (run['task'], run['variant']) == (task, words)]
            scores = [run['score'] for run in chosen]
            spread = f' ± {statistics.stdev(scores):.1f}' if len(scores) > 1 else ''
            head, below = ([value for run in chosen for value in run[name]] for name in ('classifier', 'below'))
            lines.append(f'| {task} | {words} | {statistics.mean(scores):.1f}{spread} | '
                         f'{_thirds(chosen, "classifier") if head else "not shared"} | {_thirds(chosen, "below")} | '
                         f'{100 * sum(value < 0 for value in below) / len(below):.0f} % |')
    return '\n'.join(lines) + '\n'


def _thirds(runs: list[dict], name: str) -> str:
    """Mean cosine in the first, second and last third of the training."""
    thirds = ([], [], [])
    for run in runs:
        values = run[name]
        for index, value in enumerate(values):
            thirds[3 * index // len(values)].append(value)
    return ', '.join(f'{statistics.mean(values):+.2f}' for values in thirds if values)


def draw(runs: list[dict], path: Path) -> None:
    """Rows: tasks. Columns: cosine in the classifier, cosine below it, score."""
    import matplotlib.pyplot as plt
    tasks, ways = (list(dict.fromkeys(run[name] for run in runs)) for name in ('task', 'variant'))
    figure, axes = plt.subplots(len(tasks), 3, figsize=(14, 3.6 * len(tasks)), squeeze=False, layout='constrained')
    colors = dict(zip(ways, plt.get_cmap('tab10').colors, strict=False))
    metrics = dict(cls='accuracy, %', seg='mIoU, %')
    for row, task in zip(axes, tasks, strict=True):
        of = {words: [run for run in runs if (run['task'], run['variant']) == (task, words)] for words in ways}
        for axis, name, title in zip(row, ('classifier', 'below'), ('in the classifier', 'below the '
                                                                                         'classifier'), strict=False):
            for words, chosen in of.items():
                if chosen[0][name]:
                    mean = [statistics.mean(values) for values in zip(*(run[name] for run in chosen), strict=True)]
                    axis.plot(chosen[0]['iteration'], mean, color=colors[words], label=words, linewidth=1)
            axis.axhline(0, color='black', linewidth=0.8)
            axis.set(xlabel='iteration', ylim=(-1, 1))
            axis.set_title(f'{task}: cosine of the two gradients {title}', fontsize=10)
            axis.legend(fontsize=7, loc='lower right')
        for position, (words, chosen) in enumerate(of.items()):
            scores = [run['score'] for run in chosen]
            row[2].barh(position, statistics.mean(scores), color=colors[words], alpha=0.6)
            row[2].plot(scores, [position] * len(scores), 'k.', markersize=4)
        row[2].set(title=f'{task}: {metrics[task]}', yticks=range(len(ways)), yticklabels=ways)
        row[2].invert_yaxis()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def parse_args(arguments=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--tasks', nargs='+', choices=['cls', 'seg'], default=['cls', 'seg'])
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1])
    parser.add_argument('--weights', nargs='+', type=float, default=[1., 0.1],
                        help='of the logit loss where both are trained (the paper: 1 on CIFAR-100, 0.1 on ImageNet)')
    parser.add_argument('--temperature', type=float, default=2.)
    parser.add_argument('--every', type=int, default=10, help='iterations between two measurements')
    parser.add_argument('--cls-iterations', type=int, default=600)
    parser.add_argument('--seg-iterations', type=int, default=300)
    parser.add_argument('--data', help='mini-Cityscapes of 64x128 pixels (default: made under --out)')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/dual_head_conflict'))
    return parser.parse_args(arguments)


def main(arguments=None) -> None:
    args = parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    started, runs, teachers = time.time(), [], {}
    for task in [dict(cls=Classification, seg=Segmentation)[name](args) for name in args.tasks]:
        teacher = train_teacher(task, 2 * task.iterations)
        teachers[task.name] = task.score(teacher)
        print(f'{task.name}: teacher {task.metric} {teachers[task.name]:.1f} ({time.time() - started:.0f} '
              's)', flush=True)
        for seed in args.seeds:
            for variant in variants(args.weights):
                runs.append(train_student(task, teacher, variant, seed, args))
                print(f"{task.name}: seed {seed}, {variant.words}: {runs[-1]['score']:.1f} "
                      f"({time.time() - started:.0f} s)",
                      flush=True)
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    (args.out / 'conflict.json').write_text(json.dumps(dict(settings=settings, teachers=teachers, runs=runs), indent=1))
    (args.out / 'conflict.md').write_text(table(runs, teachers))
    draw(runs, args.out / 'conflict.png')
    print(table(runs, teachers))


if __name__ == '__main__':
    logging.disable(logging.INFO)
    main()
