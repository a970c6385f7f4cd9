"""Training a classifier on prepared images in memory; no files.

One cycle of the learning rate (Smith & Topin 2017, arXiv:1708.07120) with AdamW. Everything random follows from the
seed and the epoch's number, so that a resumed training gives the same network as one that was never stopped.
"""

import contextlib
import copy
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from torch.nn import functional as F

from galgaze.config import TrainSettings
from galgaze.errors import ConfigError
from galgaze.models.attention import from_zero
from galgaze.models.augmentation import augment, central_part
from galgaze.models.gate_record import GateStatistics, gate_record
from galgaze.models.runtime import to_network_input
from galgaze.tasks import NO_CLASS

EVALUATION_BATCH = 64
STATISTICS_IMAGES = 512  # to estimate batch normalisation's mean and variance from
GATE_IMAGES = 256  # whose attention maps are described after each epoch


@dataclass
class LabelledImages:
    """Images in memory, and what is known of each.

    Attributes
    ----------
    image : torch.Tensor
        (N, C, H, W) uint8.
    label : torch.Tensor
        (N,) int64, index of the class; -1: none, the image counts for the questions alone.
    votes : torch.Tensor or None
        (N, A) vote fractions in the order of `galgaze.models.questions.ANSWERS`; NaN: not known.
    """

    image: torch.Tensor
    label: torch.Tensor
    votes: torch.Tensor | None = None


@dataclass(frozen=True)
class EpochRecord:
    """One row of the training curve.

    Attributes
    ----------
    epoch : int
        From 1.
    central : bool
        Whether the network saw the centres of the images; the weights of such epochs are not kept.
    learning_rate : float
        After the epoch.
    training_loss, validation_loss : float
        Of classes and questions together; training with label smoothing, dropout and augmentation, validation without.
    training_accuracy, validation_accuracy : float or None
        Of the images that have a class; None without any.
    validation_question_loss : float or None
        The questions' part of the validation loss; None for networks that answer none.
    gates : tuple of GateStatistics
        Of the attention on validation images.
    """

    epoch: int
    central: bool
    learning_rate: float
    training_loss: float
    training_accuracy: float | None
    validation_loss: float
    validation_accuracy: float | None
    validation_question_loss: float | None = None
    gates: tuple[GateStatistics, ...] = ()


# ------------------------------------------------------------------------------------------------ loss


class Loss:
    """Cross-entropy of the classes, and of the questions where the network answers them.

    Parameters
    ----------
    label : torch.Tensor
        (N,) int64, of the training images: the balance of the classes is theirs.
    class_balance : bool
        Weight each image by 1 / (images of its class), so that all classes count alike.
    smoothing : float
        Share of each label that is given to all classes alike.
    """

    def __init__(self, label: torch.Tensor, class_balance: bool, smoothing: float = 0.0):
        self.count = torch.bincount(label[label != NO_CLASS]) if class_balance else None
        self.smoothing = smoothing

    def classes(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """The mean over the images that have a class, 0 without any. Logits (B, K), labels (B,)."""
        logits = logits.float()
        weight = self._weight(logits)
        known = label != NO_CLASS
        total = F.cross_entropy(
            logits, label, weight, ignore_index=NO_CLASS, reduction="sum", label_smoothing=self.smoothing
        )
        return total / (weight[label[known]].sum() if self.count is not None else known.sum()).clamp_min(1e-12)

    def _weight(self, logits: torch.Tensor) -> torch.Tensor | None:
        if self.count is None:
            return None
        weight = logits.new_zeros(logits.shape[1])  # stays 0 for classes that do not occur
        weight[: len(self.count)] = (self.count > 0) / self.count.clamp_min(1)
        return weight

    def questions(self, answers: torch.Tensor | None, votes: torch.Tensor | None) -> torch.Tensor | None:
        """`galgaze.models.questions.question_loss`; None where there are no answers, or no votes on them."""
        if answers is None or votes is None:
            return None
        from galgaze.models.questions import question_loss

        return question_loss(answers.float(), votes)


def _accuracy(logits: torch.Tensor, label: torch.Tensor) -> float | None:
    known = label != NO_CLASS
    return float((logits.argmax(dim=1) == label)[known].float().mean()) if known.any() else None


# ----------------------------------------------------------------------------- the network as it is trained


class _Answering(torch.nn.Module):
    """Gives what the loss needs, logits (B, K) and answers (B, A) or None, in the precision asked for."""

    def __init__(self, network: torch.nn.Module, precision: str):
        super().__init__()
        self.network, self.mixed = network, precision == "bfloat16"

    def forward(self, image: torch.Tensor):
        # here and not around the call: threads of `DataParallel` do not inherit it
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.mixed):
            seen = self.network.examine(image)
        return seen.logits, seen.answers


def on_all_gpus(module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Let all GPUs of this machine share each batch, where there are several.

    `torch.nn.DataParallel` in one process: nothing else of the training changes. Batch statistics are then those of
    a GPU's share of the batch. **Never run**: no machine with several GPUs was at hand when this was written; with
    one GPU, or none, the module is given back as it is.
    """
    if device.type == "cuda" and torch.cuda.device_count() > 1:
        return torch.nn.DataParallel(module)
    return module


class WeightAverage:
    """A running average of a network's weights, ``m <- m + (w - m) max(1 - d, 1 / n)`` after the n-th step.

    So it is the plain mean at first, and forgets the first weights. With decay d = 0, nothing is kept.
    """

    def __init__(self, network: torch.nn.Module, decay: float):
        self.decay, self.steps = decay, 0
        self.weights = list(network.parameters()) if decay else []
        self.mean = [weight.detach().clone() for weight in self.weights]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        self.steps += 1
        share = max(1 - self.decay, 1 / self.steps)
        for mean, weight in zip(self.mean, self.weights, strict=True):
            mean.lerp_(weight, share)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the network has the mean weights."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for mean, weight in zip(self.mean, self.weights, strict=True):
            mean.data, weight.data = weight.data, mean.data

    def state(self) -> dict:
        """For `restore`."""
        return {"steps": self.steps, "mean": self.mean}

    def restore(self, state: dict) -> None:
        """Go on from a state."""
        self.steps = state["steps"]
        for mean, saved in zip(self.mean, state["mean"], strict=True):
            mean.copy_(saved)


def _estimate_batch_statistics(network, data: LabelledImages, settings: TrainSettings, epoch: int, device) -> None:
    """Batch normalisation's mean and variance anew, with the weights as they are now.

    Radio images are mostly blank and their batch statistics erratic: with the usual running average, the
    validation accuracy jumps by tens of per cent between epochs. Averaged weights have never had any.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    network.eval()  # nothing is dropped
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
        layer.momentum = None  # an even average over the batches that follow
    generator = _generator(settings.seed, -epoch)
    chosen = torch.randperm(len(data.label), generator=generator)[:STATISTICS_IMAGES]
    with torch.no_grad():
        for part in chosen.chunk(math.ceil(len(chosen) / EVALUATION_BATCH)):  # of even size: none is of one image
            network(_augmented(data.image[part], settings, epoch, generator, device))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


# ---------------------------------------------------------------------------------------- images and chance


def _generator(seed: int, epoch: int) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{epoch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _part(settings: TrainSettings, epoch: int) -> float:
    """How much of each side of the images an epoch sees."""
    return settings.central_part if epoch <= settings.central_epochs else 1.0


def _augmented(image: torch.Tensor, settings: TrainSettings, epoch: int, generator, device) -> torch.Tensor:
    """Network input (B, C, H, W) in -1..1 from stored images; their centres in the first epochs."""
    image = augment(image.to(device).float() / 255, generator, settings.augmentation, _part(settings, epoch))
    return ((image - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)


def predict_logits(network, image: torch.Tensor, batch_size: int = EVALUATION_BATCH, device="cpu") -> torch.Tensor:
    """Logits (N, K) of uint8 images (N, C, H, W), on the CPU."""
    network.eval()
    with torch.inference_mode():
        parts = [network(to_network_input(part.to(device))).float().cpu() for part in image.split(batch_size)]
    return torch.cat(parts)


def _examine(network, image: torch.Tensor, device) -> tuple[torch.Tensor, torch.Tensor | None, list[torch.Tensor]]:
    """Logits (N, K), answers (N, A) or None, and of every so many-th image the maps (M, h, w) a gate; on the CPU."""
    network.eval()
    every = math.ceil(len(image) / GATE_IMAGES)
    logits, answers, maps = [], [], []
    for rows in torch.arange(len(image)).split(EVALUATION_BATCH):
        with torch.inference_mode():
            seen = network.examine(to_network_input(image[rows].to(device)))
        logits.append(seen.logits.float().cpu())
        answers.append(None if seen.answers is None else seen.answers.float().cpu())
        kept = rows % every == 0
        maps.append([from_zero(gate.float().cpu()[kept], network.normalisation) for gate in seen.maps])
    gates = [torch.cat(parts) for parts in zip(*maps, strict=True)]
    return torch.cat(logits), None if answers[0] is None else torch.cat(answers), gates


# -------------------------------------------------------------------------------------------- the training


def train_network(
    network: torch.nn.Module,
    training: LabelledImages,
    validation: LabelledImages,
    settings: TrainSettings,
    device: torch.device,
    on_epoch: Callable[[EpochRecord, Callable[[], dict]], None] = lambda record, state: None,
    state: dict | None = None,
) -> list[EpochRecord]:
    """Train in place; leaves the weights of the best epoch (lowest validation loss) in the network.

    With `weight_average`, the mean weights are what is validated and kept. With `class_balance`, the validation
    loss is balanced too.

    Parameters
    ----------
    network : galgaze.models.network.AttentionNetwork
        With its first weights.
    training, validation : LabelledImages
        The two sides of the split.
    settings : TrainSettings
        Schedule, loss, augmentation, precision and seed.
    device : torch.device
        Where to train.
    on_epoch : callable
        Called after each epoch with its record and a function that gives the state to resume from.
    state : dict, optional
        Such a state, to go on from.

    Returns
    -------
    list of EpochRecord
        The training curve, earlier epochs of a resumed training included.

    Raises
    ------
    ConfigError
        If the loss is no longer finite.
    """
    network.to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    steps = max(1, len(training.label) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=steps * settings.epochs + 1
    )
    average = WeightAverage(network, settings.weight_average)
    loss_of = Loss(training.label, settings.class_balance)
    curve: list[EpochRecord] = []
    best = copy.deepcopy(network.state_dict())
    if state is not None:
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        average.restore(state["average"])
        best, curve = state["best"], _read_curve(state["curve"])

    def resumable() -> dict:
        return {
            "network": network.state_dict(),
            "optimiser": optimiser.state_dict(),
            "schedule": schedule.state_dict(),
            "average": average.state(),
            "best": best,
            "curve": [asdict(row) for row in curve],
        }

    central = settings.central_epochs
    while len(curve) < settings.epochs and not _out_of_patience(curve[central:], settings.patience_epochs):
        epoch = len(curve) + 1
        training_loss, training_accuracy = _train_epoch(
            network, training, settings, epoch, optimiser, schedule, average, device
        )
        with average.in_place():
            _estimate_batch_statistics(network, training, settings, epoch, device)
            record = EpochRecord(
                epoch=epoch,
                central=epoch <= central,
                learning_rate=schedule.get_last_lr()[0],
                training_loss=training_loss,
                training_accuracy=training_accuracy,
                **_validate(network, validation, _part(settings, epoch), loss_of, device),
            )
            if record.validation_loss < min((row.validation_loss for row in curve[central:]), default=math.inf):
                best = copy.deepcopy(network.state_dict())
        _check_finite(record)
        curve.append(record)
        on_epoch(record, resumable)
    network.load_state_dict(best)
    return curve


def _check_finite(record: EpochRecord) -> None:
    if not math.isfinite(record.training_loss + record.validation_loss):
        raise ConfigError(
            f"The training has diverged: in epoch {record.epoch} its loss is {record.training_loss}, on the validation "
            f"side {record.validation_loss}. Lower `learning_rate` (it was {record.learning_rate:.2g} then)."
        )


def _read_curve(rows: list[dict]) -> list[EpochRecord]:
    return [EpochRecord(**(row | {"gates": tuple(GateStatistics(**gate) for gate in row["gates"])})) for row in rows]


def _out_of_patience(curve: list[EpochRecord], patience: int) -> bool:
    if not curve:
        return False
    best = min(curve, key=lambda row: row.validation_loss)
    return curve[-1].epoch - best.epoch >= patience


def _train_epoch(
    network, data: LabelledImages, settings: TrainSettings, epoch: int, optimiser, schedule, average, device
) -> tuple[float, float | None]:
    """One pass; mean loss, and accuracy, over it."""
    generator = _generator(settings.seed, epoch)
    torch.manual_seed(generator.initial_seed())  # dropout
    network.train()
    model = on_all_gpus(_Answering(network, settings.precision), device)
    loss_of = Loss(data.label, settings.class_balance, settings.label_smoothing)
    order = torch.randperm(len(data.label), generator=generator)
    losses, hits, labelled, seen = 0.0, 0, 0, 0
    # a last, smaller batch would have erratic batch statistics: it is left out
    size = min(settings.batch_size, len(order))
    for start in range(0, len(order) - size + 1, size):
        chosen = order[start : start + size]
        label = data.label[chosen].to(device)
        votes = None if data.votes is None else data.votes[chosen].to(device)
        logits, answers = model(_augmented(data.image[chosen], settings, epoch, generator, device))
        loss, of_questions = loss_of.classes(logits, label), loss_of.questions(answers, votes)
        loss = loss if of_questions is None else loss + of_questions
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        average.update()
        losses += float(loss.detach()) * size
        hits += int((logits.detach().argmax(dim=1) == label).sum())
        labelled += int((label != NO_CLASS).sum())
        seen += size
    return losses / seen, hits / labelled if labelled else None


def _validate(network, data: LabelledImages, part: float, loss_of: Loss, device) -> dict:
    """The validation's part of an `EpochRecord`."""
    image = central_part(data.image, part)
    logits, answers, maps = _examine(network, image, device)
    of_classes, of_questions = loss_of.classes(logits, data.label), loss_of.questions(answers, data.votes)
    return {
        "validation_loss": float(of_classes if of_questions is None else of_classes + of_questions),
        "validation_accuracy": _accuracy(logits, data.label),
        "validation_question_loss": None if of_questions is None else float(of_questions),
        "gates": tuple(gate_record(maps)),
    }
