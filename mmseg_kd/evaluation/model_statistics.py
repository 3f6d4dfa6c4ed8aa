"""One pass over the validation images with all models of a report."""
from dataclasses import dataclass, field

import torch
from mmengine.utils import ProgressBar
from torch import Tensor, nn

from mmseg_kd.distillers.segmentation.prediction import Prediction
from mmseg_kd.evaluation.agreement import Agreement
from mmseg_kd.evaluation.boundary_iou import BoundaryIoU
from mmseg_kd.evaluation.calibration import Calibration
from mmseg_kd.evaluation.confusion import accuracy, confusion_matrix
from mmseg_kd.evaluation.predictions import is_segmentor, num_classes_of, predictor_of
from mmseg_kd.evaluation.topk_mass import TopKMass

__all__ = ['Statistics', 'one_pass']


@dataclass
class Statistics:
    """What the pass gathers about one model; ``image_accuracy`` holds the share of right pixels of each image.

    A classifier's image is one position (``dense=False``), and has no boundaries.
    """

    num_classes: int
    dense: bool = True
    confusion: Tensor = field(init=False)
    image_accuracy: list[float] = field(default_factory=list)

    def __post_init__(self):
        self.confusion = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)
        self.calibration = Calibration()
        self.boundary = BoundaryIoU(self.num_classes) if self.dense else None
        self.to_teacher = Agreement(self.num_classes)

    def update(self, prediction: Prediction, teacher: Prediction) -> None:
        """Add one image: what the model and what the teacher say about it."""
        logits, predicted, labels = prediction
        confidence = logits.softmax(0).gather(0, predicted[None])[0]
        valid = (labels >= 0) & (labels < self.num_classes)
        matrix = confusion_matrix(predicted, labels, self.num_classes)
        self.confusion += matrix
        self.image_accuracy.append(accuracy(matrix))
        self.calibration.update(confidence[valid], (predicted == labels)[valid])
        if self.boundary is not None:
            self.boundary.update(predicted.cpu().numpy(), labels.cpu().numpy())
        self.to_teacher.update(logits[None], teacher.logits[None], labels[None])


@torch.no_grad()
def one_pass(models: dict[str, nn.Module], teacher: str, loader, temperatures: dict[str, float],
             ) -> tuple[dict[str, Statistics], dict[str, TopKMass]]:
    """Run every model on every image once.

    Args:
        models: Name to model.
        teacher: Name of the teacher among them.
        loader: Data loader of the validation images.
        temperatures: Words to a temperature at which the teacher's top-k mass is counted.

    Returns:
        Statistics by model, and the teacher's top-k mass by temperature.
    """
    num_classes, dense = num_classes_of(models[teacher]), is_segmentor(models[teacher])
    statistics = {name: Statistics(num_classes, dense) for name in models}
    predict = predictor_of(models[teacher])
    masses = {words: TopKMass(num_classes, temperature=value) for words, value in temperatures.items()}
    progress = ProgressBar(len(loader.dataset))
    for data in loader:
        of_model = {name: predict(model, data) for name, model in models.items()}
        for one, of_teacher in enumerate(of_model[teacher]):
            for name, each in statistics.items():
                each.update(of_model[name][one], of_teacher)
            for mass in masses.values():
                mass.update(of_teacher.logits[None], of_teacher.labels[None])
            progress.update()
    print()
    return statistics, masses
