"""What equivariance costs, and what it gives: the AG-CNN beside its equivariant forms.

    python -m benchmarks.equivariance cost [--groups C4 D4 ...]
    python -m benchmarks.equivariance rotation MODEL.safetensors ... --data DIR/batches
    python -m benchmarks.equivariance train --data DIR/batches --epochs 40 --fold 1 [--groups C4 D4] [--simulated 3000]

``cost``: parameters, FLOP an image of 150 px, and images a second, at each group's own default widths and at the
paper's (Bowles et al. 2021b, arXiv:2111.04742). ``rotation``: how much trained models change their mind when real
images are turned. ``train``: trains the plain network and the equivariant ones alike, with widths that cost the same
FLOP an image within 20 %, on all but one of the five folds of `benchmarks.mirabest` (MiraBest's training part, by
position) or on simulated sources (``--simulated COUNT``: a few hundred real ones teach a small equivariant network
nothing); says how soon each got how far, and what turning the fold's real images does to it. Nothing here reads
MiraBest's test part. Tables are printed and written to results/benchmarks/.
"""

import argparse
import functools
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.mirabest import FOLDS, folds_of, read
from benchmarks.simulated_to_real import simulated_images
from galgaze.config import AgcnnSettings, EquivariantSettings, MirabestDataset, TrainSettings
from galgaze.errors import ConfigError
from galgaze.images.datasets import LabelledSet
from galgaze.models.agcnn import AGCNN
from galgaze.models.combined import rotate
from galgaze.models.equivariant import EquivariantAGCNN, ExportedAGCNN, export, export_architecture, inside_disc
from galgaze.models.groups import GROUPS
from galgaze.models.model_file import architecture_of, load_network
from galgaze.models.network import AttentionNetwork
from galgaze.models.registry import create_network
from galgaze.models.runtime import best_device, tune_allocator
from galgaze.models.training import EpochRecord, LabelledImages, train_network
from galgaze.tasks import RADIO_FR

OUT = Path("results/benchmarks")
SIZE_PX = 150
PLAIN = AgcnnSettings()  # with the paper's 64 gate channels: 238 MFLOP
PAPER_WIDTHS = (6, 16, 32, 64)
ANGLES_DEG = (90.0, 45.0, 22.5)  # 90: what an exact symmetry leaves, and the others are to be seen against
FLOP_TOLERANCE = 0.2
FINAL_SHARE = 0.1  # of the epochs: the final accuracy is their mean
GOAL = 0.9  # of the final accuracy


def write(table: pd.DataFrame, name: str) -> None:
    """Print a table, and leave it in results/benchmarks/."""
    OUT.mkdir(parents=True, exist_ok=True)
    table.to_csv(OUT / f"equivariance_{name}.csv", index=False)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"), flush=True)


# ------------------------------------------------------------------------------------------------- cost


def flop(network: torch.nn.Module, size_px: int = SIZE_PX) -> int:
    """FLOP of one image (a multiplication and an addition are two); the network is gone afterwards."""
    network = network.to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 1, size_px, size_px, device="meta"))
    return counter.get_total_flops()


def equivariant_flop(settings: dict) -> int:
    """FLOP of one image of the exported network: turning the filters, once a batch, is left out."""
    plain = export_architecture(settings)
    del plain["name"]
    with torch.device("meta"):
        return flop(ExportedAGCNN(1, len(RADIO_FR.classes), **plain))


def images_per_second(network: torch.nn.Module, mflop: float, seconds: float) -> float:
    """Of the network in evaluation, on images of 150 px, as predicted (channels last)."""
    batch = 16 if mflop < 10_000 else 1
    network = network.to(memory_format=torch.channels_last).eval()
    image = torch.rand(batch, 1, SIZE_PX, SIZE_PX).to(memory_format=torch.channels_last) * 2 - 1
    with torch.inference_mode():
        if mflop < 10_000:
            network(image)
        start, seen = time.perf_counter(), 0
        while not seen or time.perf_counter() - start < seconds:
            network(image)
            seen += batch
    return seen / (time.perf_counter() - start)


def cost(groups: list[str], seconds: float) -> None:
    """Print parameters, FLOP and speed of the plain network and of each group."""
    plain = create_network(architecture_of(PLAIN), 1, 2)
    rows = [_cost_row("plain", "default", PLAIN.widths, _parameters(plain), plain, flop(AGCNN(1, 2)), seconds)]
    for label, more in (("default", {}), ("paper", {"widths": list(PAPER_WIDTHS), "gate_channels": 64})):
        for group in groups:
            chosen = group_settings(group, **more)
            network = EquivariantAGCNN(1, 2, **chosen)
            parameters, built = _parameters(network), export(network)
            del network
            rows.append(_cost_row(group, label, chosen["widths"], parameters, built, equivariant_flop(chosen), seconds))
    table = pd.DataFrame(rows)
    table["flop_ratio"] = table["mflop"] / table["mflop"][0]
    table["speed_ratio"] = table["images_per_s"] / table["images_per_s"][0]
    write(table, "cost")


def group_settings(group: str, **more) -> dict:
    """Settings of `EquivariantAGCNN` as configured for a group: widths left out are the group's own."""
    settings = EquivariantSettings(architecture="equivariant_agcnn", group=group, **more)
    return settings.model_dump(exclude={"architecture"})


def _parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _cost_row(name: str, label: str, widths, parameters: int, built, flop_an_image: int, seconds: float) -> dict:
    row = {
        "network": name, "widths": f"{label} {list(widths)}", "parameters": parameters, "mflop": flop_an_image / 1e6,
        "images_per_s": images_per_second(built, flop_an_image / 1e6, seconds),
    }  # fmt: skip
    print(row, flush=True)
    return row


# --------------------------------------------------------------------------------------------- rotation


def rotation_rows(name: str, network: AttentionNetwork, image: torch.Tensor) -> list[dict]:
    """How much turned images change what a network says: a row an angle.

    Images are blanked outside of their inscribed disc first, for every network alike: nothing is turned out of sight.

    Parameters
    ----------
    name : str
        Of the network.
    network : AttentionNetwork
        In any mode.
    image : torch.Tensor
        (N, 1, H, W) uint8.

    Returns
    -------
    list of dict
        The median over images of norm(l' - l) / norm(l), l the logits and l' those of the image turned bilinearly; the
        median change of the probability of the first class; the share of images that get another class.
    """
    light = image.float() / 255 * inside_disc(*image.shape[2:])
    upright = _logits(network, light)
    rows = []
    for angle_deg in ANGLES_DEG:
        turned = _logits(network, rotate(light, angle_deg))
        change = (turned - upright).norm(dim=1) / upright.norm(dim=1).clamp_min(1e-12)
        probability = (turned.softmax(dim=1) - upright.softmax(dim=1))[:, 0].abs()
        rows.append(
            {
                "network": name, "angle_deg": angle_deg, "images": len(image),
                "median_relative_change_of_logits": float(change.median()),
                "median_change_of_probability": float(probability.median()),
                "other_class": float((turned.argmax(dim=1) != upright.argmax(dim=1)).double().mean()),
            }
        )  # fmt: skip
    return rows


def _logits(network: AttentionNetwork, light: torch.Tensor) -> torch.Tensor:
    """Of images (N, 1, H, W) in 0..1."""
    network.eval()
    device = next(network.parameters()).device
    with torch.inference_mode():
        return torch.cat([network((2 * part - 1).to(device)).double().cpu() for part in light.split(32)])


def rotation(models: list[Path], data: str, subset: str, limit: int | None) -> None:
    """Print the rotation table of trained model files."""
    image = torch.from_numpy(some_images(read(data), subset, limit).image)
    rows = []
    for model in models:
        network, card = load_network(model)
        size = card.preparation.get("size_px", SIZE_PX)
        if card.task != RADIO_FR.name or size != SIZE_PX:
            raise ConfigError(
                f"{model}: made for {card.task} and {size} px; MiraBest is {RADIO_FR.name}, with {SIZE_PX} px."
            )
        rows += rotation_rows(f"{model.stem} ({card.architecture['name']})", network.to(best_device()), image)
    write(pd.DataFrame(rows), "rotation")


# ------------------------------------------------------------------------------------------------- data


@dataclass
class _Images:
    """Images (N, 1, H, W) uint8, class indices (N,) and folds (N,)."""

    image: np.ndarray
    label: np.ndarray
    fold: np.ndarray


def some_images(data: LabelledSet, subset: str, limit: int | None) -> _Images:
    """At most so many images of a subset, spread over it; folds are those of the whole set, whatever is left out."""
    rows = np.flatnonzero(data.confident) if subset == "confident" else np.arange(len(data.label))
    every = max(1, math.ceil(len(rows) / limit)) if limit else 1
    chosen = rows[::every]
    return _Images(data.image[chosen], data.label[chosen], folds_of(data)[chosen])


# --------------------------------------------------------------------------------------------- training


def matched_widths(settings: dict, target_flop: int, shape: tuple[int, ...] = PAPER_WIDTHS) -> list[int]:
    """Widths of an equivariant network that costs about so many FLOP an image.

    They are as near to the plain network's proportions as the cost allows: scaled together first, then one at a time.

    Parameters
    ----------
    settings : dict
        Of `EquivariantAGCNN`; its widths are not read.
    target_flop : int
        To come within 20 % of.
    shape : tuple of int
        Proportions of the four widths.

    Raises
    ------
    ConfigError
        If there are none: each stage needs one field at least.
    """

    @functools.cache
    def excess(widths: tuple[int, ...]) -> float:
        return math.log(equivariant_flop(settings | {"widths": list(widths)}) / target_flop)

    def miss(widths: tuple[int, ...]) -> float:
        return abs(excess(widths))

    scaled, low, high = [], 0.25 / GROUPS[settings["group"]].order, 4.0
    for _ in range(10):
        middle = math.sqrt(low * high)
        scaled.append(tuple(max(1, round(middle * width)) for width in shape))
        low, high = (low, middle) if excess(scaled[-1]) > 0 else (middle, high)
    best = min(scaled, key=miss)
    while miss(best) > math.log(1 + FLOP_TOLERANCE):
        steps = [
            tuple(width + step * (place == stage) for place, width in enumerate(best))
            for stage in range(4)
            for step in (-1, 1)
            if best[stage] + step >= 1
        ]
        better = min(steps, key=miss)
        if miss(better) >= miss(best):
            break
        best = better
    if miss(best) > math.log(1 + FLOP_TOLERANCE):
        nearest = equivariant_flop(settings | {"widths": list(best)}) / 1e6
        raise ConfigError(
            f"{settings['group']} with kernels of {settings['kernel_size']} px cannot cost {target_flop / 1e6:.0f} "
            f"MFLOP an image; the nearest is {nearest:.0f} with the widths {list(best)}. Leave the group out, take "
            "smaller kernels, or give the plain network more to spend (--plain-widths)."
        )
    return list(best)


def networks(words: argparse.Namespace) -> dict[str, tuple[dict, float]]:
    """The architectures to compare, with their MFLOP an image."""
    common = {"gate_channels": words.gate_channels, "faint_light": words.faint_light, "dropout": words.dropout}
    plain = architecture_of(AgcnnSettings(widths=words.plain_widths, **common))
    target = flop(create_network(plain, 1, 2))
    chosen = {"plain": (plain, target / 1e6)}
    for group in words.groups:
        settings = EquivariantSettings(
            architecture="equivariant_agcnn", group=group, kernel_size=words.kernel_size, **common
        )
        architecture = architecture_of(settings)
        widths = matched_widths(settings.model_dump(exclude={"architecture"}), target, tuple(words.plain_widths))
        architecture["widths"] = widths
        mflop = equivariant_flop({key: value for key, value in architecture.items() if key != "name"}) / 1e6
        chosen[group] = (architecture, mflop)
    for name, (architecture, mflop) in chosen.items():
        kernel = architecture.get("kernel_size", 3)
        print(f"{name}: widths {architecture['widths']}, kernels {kernel} px, {mflop:.0f} MFLOP an image", flush=True)
    return chosen


def train(words: argparse.Namespace) -> None:
    """Train them all alike on one fold, or on the simulated sky, and print what became of them."""
    data = some_images(read(words.data), words.subset, words.limit)
    held_out = data.fold == words.fold
    real = _labelled(data.image[held_out], data.label[held_out])
    if words.simulated:
        training, validation = _simulated(words.simulated, words.seed)
    else:
        training, validation = _labelled(data.image[~held_out], data.label[~held_out]), real
    print(f"{len(training.label)} images to train on, {len(validation.label)} to validate on", flush=True)
    settings = TrainSettings(
        dataset=MirabestDataset(kind="mirabest", path=words.data, subset=words.subset),
        epochs=words.epochs,
        central_epochs=words.central_epochs,
        patience_epochs=words.epochs,
        batch_size=words.batch_size,
        learning_rate=words.learning_rate,
        weight_average=words.weight_average,
        seed=words.seed,
    )
    curves, summary, turned = [], [], []
    for name, (architecture, mflop) in networks(words).items():
        torch.manual_seed(words.seed)
        network = create_network(architecture, 1, len(RADIO_FR.classes))
        parameters = _parameters(network)
        curve = train_network(network, training, validation, settings, best_device(), _say(name))
        mflop_an_epoch = 3 * mflop * len(training.label)  # backward costs twice what forward does
        keys = {"network": name, "widths": str(architecture["widths"]), "fold": words.fold, "seed": words.seed}
        curves += [keys | _curve_row(record, mflop_an_epoch) for record in curve]
        cost = {"parameters": parameters, "mflop_an_image": mflop}
        summary.append(keys | cost | progress([record.validation_accuracy for record in curve], mflop_an_epoch))
        summary[-1]["real_accuracy"] = _accuracy(network, real)
        turned += rotation_rows(name, network, real.image)
        source = f"simulated{words.simulated}" if words.simulated else f"fold{words.fold}"
        stem = f"{source}_seed{words.seed}"  # written after each network: a long run may be stopped
        write(pd.DataFrame(summary), f"summary_{stem}")
        write(pd.DataFrame(turned), f"rotation_{stem}")
        pd.DataFrame(curves).to_csv(OUT / f"equivariance_curves_{stem}.csv", index=False)


def _labelled(image: np.ndarray, label: np.ndarray) -> LabelledImages:
    return LabelledImages(torch.from_numpy(image), torch.from_numpy(label))


def _simulated(count: int, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """So many simulated sources to train on, and an eighth more to validate on."""
    image, label = simulated_images("radio_fr", count + count // 8, f"equivariance-{seed}", workers=1)
    first = len(label) * 8 // 9  # those without a class are left out of both alike
    return _labelled(image[:first], label[:first]), _labelled(image[first:], label[first:])


def _accuracy(network: AttentionNetwork, images: LabelledImages) -> float:
    """On real images, of which the network may have seen none."""
    said = _logits(network, images.image.float() / 255 * inside_disc(*images.image.shape[2:])).argmax(dim=1)
    return float((said == images.label).double().mean())


def _curve_row(record: EpochRecord, mflop_an_epoch: float) -> dict:
    row = {key: value for key, value in asdict(record).items() if key != "gates"}
    return row | {"tflop": record.epoch * mflop_an_epoch / 1e6}


def _say(name: str):
    def on_epoch(record: EpochRecord, _resumable) -> None:
        print(
            f"{name} epoch {record.epoch}: loss {record.training_loss:.3f}, accuracy {record.training_accuracy:.3f}; "
            f"validation {record.validation_loss:.3f}, {record.validation_accuracy:.3f}",
            flush=True,
        )

    return on_epoch


def progress(accuracy: list[float], mflop_an_epoch: float) -> dict:
    """How good it became, and how soon it was nearly there.

    Parameters
    ----------
    accuracy : list of float
        On the validation side, epoch by epoch.
    mflop_an_epoch : float
        Of training.

    Returns
    -------
    dict
        ``final_accuracy``: the mean of the last tenth of the epochs; ``epochs_to_90``: the first epoch with 90 % of it,
        and ``epochs_to_stay``: the first one from which on none has less; TFLOP until either.
    """
    last = max(1, round(FINAL_SHARE * len(accuracy)))
    final = float(np.mean(accuracy[-last:]))
    reached = np.array(accuracy) >= GOAL * final
    first = int(np.argmax(reached)) + 1 if reached.any() else None
    below = np.flatnonzero(~reached)
    stays = int(below[-1]) + 2 if len(below) else 1
    stays = stays if stays <= len(accuracy) else None
    return {
        "epochs": len(accuracy),
        "final_accuracy": final,
        "best_accuracy": max(accuracy),
        "epochs_to_90": first,
        "tflop_to_90": None if first is None else first * mflop_an_epoch / 1e6,
        "epochs_to_stay": stays,
        "tflop_to_stay": None if stays is None else stays * mflop_an_epoch / 1e6,
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    commands = parser.add_subparsers(dest="command", required=True)
    spending = commands.add_parser("cost")
    spending.add_argument("--groups", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    spending.add_argument("--seconds", type=float, default=3.0, help="to time each network for, at least")
    turning = commands.add_parser("rotation")
    turning.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    learning = commands.add_parser("train")
    for command in (turning, learning):
        command.add_argument("--data", required=True, help="folder of MiraBest's batches")
        command.add_argument("--subset", choices=("all", "confident"), default="all")
        command.add_argument("--limit", type=int, help="at most so many images")
    learning.add_argument(
        "--simulated", type=int, metavar="COUNT", help="train on so many simulated sources; the fold is only looked at"
    )
    learning.add_argument("--epochs", type=int, default=40)
    learning.add_argument("--central-epochs", type=int, default=0, help="the first so many see the images' centres")
    learning.add_argument("--fold", type=int, choices=range(FOLDS), default=1, help="to validate on")
    learning.add_argument("--groups", nargs="+", choices=list(GROUPS), default=["C4", "D4"])
    learning.add_argument("--plain-widths", nargs=4, type=int, default=list(PAPER_WIDTHS))
    learning.add_argument("--kernel-size", type=int, choices=(3, 5, 7, 9), default=3, help="of equivariant networks")
    learning.add_argument("--gate-channels", type=int, default=16)
    learning.add_argument("--faint-light", action="store_true")
    learning.add_argument("--dropout", type=float, default=0.2)
    learning.add_argument("--batch-size", type=int, default=32)
    learning.add_argument("--learning-rate", type=float, default=0.005)
    learning.add_argument("--weight-average", type=float, default=0.0)
    learning.add_argument("--seed", type=int, default=1)
    words = parser.parse_args()
    tune_allocator()
    torch.set_num_threads(words.threads)
    if words.command == "cost":
        cost(words.groups, words.seconds)
    elif words.command == "rotation":
        rotation(words.models, words.data, words.subset, words.limit)
    else:
        train(words)


if __name__ == "__main__":
    main()
