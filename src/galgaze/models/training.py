"""Training a classifier on prepared images in memory; no files.

One cycle of the learning rate (Smith & Topin 2017, arXiv:1708.07120) with AdamW; rotations, flips, zooms and
shifts as in Bowles et al. 2021. Everything random follows from the seed and the epoch's number, so that a
resumed training gives the same network as one that was never stopped.
"""

import copy
import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch.nn import functional as F

from galgaze.config import TrainSettings
from galgaze.fields.sky import chord, unit_vectors
from galgaze.models.runtime import to_network_input

EVALUATION_BATCH = 64
STATISTICS_IMAGES = 512  # to estimate batch normalisation's mean and variance from
TWIN_RADIUS_ARCSEC = 30.0


@dataclass
class LabelledImages:
    """Images in memory: (N, C, H, W) uint8 and the class index of each, (N,) int64."""

    image: torch.Tensor
    label: torch.Tensor


@dataclass(frozen=True)
class EpochRecord:
    """One row of the training curve; `central` epochs saw the centres of the images, and their weights are not kept."""

    epoch: int
    central: bool
    learning_rate: float
    training_loss: float
    training_accuracy: float
    validation_loss: float
    validation_accuracy: float


def split_by_position(
    source_id: np.ndarray, ra_deg: np.ndarray, dec_deg: np.ndarray, validation_fraction: float, seed: int
) -> np.ndarray:
    """Which sources to validate on: (N,) bool.

    Sources within 30 arcsec of each other (the same object listed twice, neighbours on one image) go to the
    same side. Whether a source is chosen depends on its ids and the seed alone, not on the other rows.
    """
    tree = cKDTree(unit_vectors(ra_deg, dec_deg))
    pairs = tree.query_pairs(chord(TWIN_RADIUS_ARCSEC), output_type="ndarray")
    count = len(source_id)
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, group = connected_components(graph, directed=False)
    first_id: dict[int, str] = {}
    for name, number in zip(source_id, group, strict=True):
        first_id[number] = min(name, first_id.get(number, name))
    draw = {number: _uniform(f"{seed}:{name}") for number, name in first_id.items()}
    return np.array([draw[number] < validation_fraction for number in group])


def _uniform(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(_uniform(f"{seed}:{epoch}") * 2**63))


def augment(image: torch.Tensor, generator: torch.Generator, part: float = 1.0) -> torch.Tensor:
    """Turn by any angle, flip, zoom by 0.9 to 1.1, shift by up to 2 px; then keep the central part of each side.

    (B, C, H, W) in 0..1 -> (B, C, part H, part W). What comes in from outside of the image is 0, as blank sky is.
    """
    count, channels, height, width = image.shape
    angle, zoom, shift_x, shift_y, flip = torch.rand(5, count, generator=generator)
    angle, zoom = 2 * torch.pi * angle, 1 / (0.9 + 0.2 * zoom)
    mirror = torch.where(flip < 0.5, -1.0, 1.0)
    cosine, sine = torch.cos(angle) * zoom * part, torch.sin(angle) * zoom * part
    # (B, 2, 3), in units of half the image's side
    matrix = torch.stack(
        [
            torch.stack([cosine * mirror, -sine, (shift_x - 0.5) * 8 / width], dim=1),
            torch.stack([sine * mirror, cosine, (shift_y - 0.5) * 8 / height], dim=1),
        ],
        dim=1,
    ).to(image.device)
    size = [count, channels, round(height * part), round(width * part)]
    grid = F.affine_grid(matrix, size, align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def central_half(image: torch.Tensor) -> torch.Tensor:
    """The central half of each side: (N, C, H, W) -> (N, C, H / 2, W / 2)."""
    height, width = (round(side / 2) for side in image.shape[2:])
    top, left = (image.shape[2] - height) // 2, (image.shape[3] - width) // 2
    return image[:, :, top : top + height, left : left + width]


def _estimate_batch_statistics(network, data: "LabelledImages", settings: TrainSettings, epoch: int, device) -> None:
    """Batch normalisation's mean and variance anew, with the weights as they are now.

    Radio images are mostly blank and their batch statistics erratic: with the usual running average, the
    validation accuracy jumps by tens of per cent between epochs.
    """
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # an even average over the batches that follow
    network.train()
    generator = _generator(settings.seed, -epoch)
    chosen = torch.randperm(len(data.label), generator=generator)[:STATISTICS_IMAGES]
    with torch.no_grad():
        for part in chosen.split(EVALUATION_BATCH):
            network(_augmented(data.image[part], settings, epoch, generator, device))


def _augmented(image: torch.Tensor, settings: TrainSettings, epoch: int, generator, device) -> torch.Tensor:
    """Network input (B, C, H, W) in -1..1 from stored images; their centres in the first epochs."""
    part = 0.5 if epoch <= settings.central_epochs else 1.0
    image = augment(image.to(device).float() / 255, generator, part)
    return ((image - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)


def predict_logits(network, image: torch.Tensor, batch_size: int = EVALUATION_BATCH, device="cpu") -> torch.Tensor:
    """Logits (N, K) of uint8 images (N, C, H, W), on the CPU."""
    network.eval()
    with torch.inference_mode():
        parts = [network(to_network_input(part.to(device))).float().cpu() for part in image.split(batch_size)]
    return torch.cat(parts)


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

    Parameters
    ----------
    network : torch.nn.Module
        With its first weights.
    training, validation : LabelledImages
        The two sides of the split.
    settings : TrainSettings
        Schedule and seed.
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
    """
    network.to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    steps = max(1, len(training.label) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=steps * settings.epochs + 1
    )
    curve: list[EpochRecord] = []
    best = copy.deepcopy(network.state_dict())
    if state is not None:
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        best = state["best"]
        curve = [EpochRecord(**row) for row in state["curve"]]

    def resumable() -> dict:
        return {
            "network": network.state_dict(),
            "optimiser": optimiser.state_dict(),
            "schedule": schedule.state_dict(),
            "best": best,
            "curve": [asdict(row) for row in curve],
        }

    central = settings.central_epochs
    while len(curve) < settings.epochs and not _out_of_patience(curve[central:], settings.patience_epochs):
        epoch = len(curve) + 1
        loss, accuracy = _train_epoch(network, training, settings, epoch, optimiser, schedule, device)
        _estimate_batch_statistics(network, training, settings, epoch, device)
        image = central_half(validation.image) if epoch <= central else validation.image
        logits = predict_logits(network, image, device=device)
        record = EpochRecord(
            epoch,
            epoch <= central,
            schedule.get_last_lr()[0],
            loss,
            accuracy,
            float(F.cross_entropy(logits, validation.label)),
            float((logits.argmax(dim=1) == validation.label).float().mean()),
        )
        if record.validation_loss < min((row.validation_loss for row in curve[central:]), default=math.inf):
            best = copy.deepcopy(network.state_dict())
        curve.append(record)
        on_epoch(record, resumable)
    network.load_state_dict(best)
    return curve


def _out_of_patience(curve: list[EpochRecord], patience: int) -> bool:
    if not curve:
        return False
    best = min(curve, key=lambda row: row.validation_loss)
    return curve[-1].epoch - best.epoch >= patience


def _train_epoch(network, data: LabelledImages, settings, epoch, optimiser, schedule, device) -> tuple[float, float]:
    """One pass; mean loss and accuracy over it."""
    generator = _generator(settings.seed, epoch)
    torch.manual_seed(generator.initial_seed())  # dropout
    network.train()
    order = torch.randperm(len(data.label), generator=generator)
    losses, hits, seen = 0.0, 0, 0
    # a last, smaller batch would have erratic batch statistics: it is left out
    size = min(settings.batch_size, len(order))
    for start in range(0, len(order) - size + 1, size):
        chosen = order[start : start + size]
        label = data.label[chosen].to(device)
        logits = network(_augmented(data.image[chosen], settings, epoch, generator, device))
        loss = F.cross_entropy(logits, label)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        losses += float(loss.detach()) * size
        hits += int((logits.detach().argmax(dim=1) == label).sum())
        seen += size
    return losses / seen, hits / seen
