"""What a network that has only seen the simulated sky says about real images.

    python -m benchmarks.simulated_to_real train radio_fr MODEL.safetensors [--count 8000]
    python -m benchmarks.simulated_to_real train optical_morphology MODEL.safetensors [--count 12000]
    python -m benchmarks.simulated_to_real evaluate MODEL.safetensors DATA [--half steer|report]

``train`` draws simulated sources, prepares them as the pipeline does and trains the pipeline's network on them; no
real image is read. ``evaluate`` scores the model on real ones: MiraBest's confident FRI and FRII, or the sample of
Galaxy10 DECaLS (ten classes) and SDSS discs (barred or not). The real images are split once (`benchmarks.real_images`):
the simulated sky was made looking at the half ``steer`` alone; figures to quote are those of the half ``report``.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the processes that draw are the threads; before numpy is loaded

import argparse
import hashlib
import io
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.real_images import RealImages, galaxy10_sample, mirabest, sdss_bars
from galgaze import status
from galgaze.config import (
    AgcnnSettings,
    Augmentation,
    BarNetworkSettings,
    OpticalPreparation,
    RadioPreparation,
    SimulatedFirstSurvey,
    SimulatedLegacySurvey,
    TrainSettings,
)
from galgaze.images.preparation import channels, prepare, viewer_composite
from galgaze.measures.evaluation import confusion_matrix, roc_auc
from galgaze.stages.train import train_model
from galgaze.stages.training_data import TrainingData, answers_questions
from galgaze.surveys.base import Cutout, Source, Survey
from galgaze.surveys.directory import BANDS_OF_PICTURES
from galgaze.surveys.registry import open_survey
from galgaze.surveys.simulated.votes import simulated_votes
from galgaze.tasks import TASKS

CHUNK = 50
SPIRALS = ("barred_spiral", "unbarred_tight_spiral", "unbarred_loose_spiral")

SURVEYS = {
    "optical_morphology": SimulatedLegacySurvey(kind="simulated_legacy"),
    "radio_fr": SimulatedFirstSurvey(kind="simulated_first"),
}
PREPARATIONS = {"optical_morphology": OpticalPreparation(), "radio_fr": RadioPreparation(kind="radio_clip")}
TRAINING = {
    "optical_morphology": TrainSettings(
        field="simulated",
        network=BarNetworkSettings(architecture="bar_network"),
        augmentation=Augmentation(noise=0.05),
        epochs=14,
        central_epochs=11,
        batch_size=32,
        learning_rate=0.008,
        label_smoothing=0.05,
        weight_average=0.99,
        validation_fraction=0.06,
        torch_threads=1,
    ),
    "radio_fr": TrainSettings(
        field="simulated",
        network=AgcnnSettings(gate_channels=16, dropout=0.1, faint_light=True, binning=2),
        epochs=12,
        batch_size=64,
        precision="bfloat16",
        learning_rate=0.005,
        label_smoothing=0.05,
        weight_average=0.99,
        validation_fraction=0.06,
        torch_threads=1,
    ),
}


# ------------------------------------------------------------------------------------- simulated images


@dataclass(frozen=True)
class SimulatedSet:
    """Images (N, C, H, W) uint8, class indices (N,), ids (N,), and vote fractions (N, A) of galaxies."""

    image: np.ndarray
    label: np.ndarray
    source_id: np.ndarray
    votes: np.ndarray | None


def simulated_set(task: str, count: int, prefix: str, workers: int) -> SimulatedSet:
    """Simulated sources that have a class, prepared, with what volunteers would say of galaxies."""
    jobs = [(task, prefix, start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    with ProcessPoolExecutor(workers) as pool:
        images, truths = zip(*pool.map(_draw_chunk, jobs), strict=True)
    truth = pd.DataFrame([row for part in truths for row in part])
    votes = simulated_votes(truth) if TASKS[task].kind == "optical" else None
    label = truth["class_index"].to_numpy(np.int64)
    return SimulatedSet(np.concatenate(images), label, truth["source_id"].to_numpy(str), votes)


def simulated_images(task: str, count: int, prefix: str, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, C, H, W) uint8 and class indices (N,) of simulated sources that have a class."""
    found = simulated_set(task, count, prefix, workers)
    return found.image, found.label


def _draw_chunk(job: tuple[str, str, int, int]) -> tuple[np.ndarray, list[dict]]:
    task, prefix, start, stop = job
    survey, preparation = open_survey(SURVEYS[task]), PREPARATIONS[task]
    images, truths = [], []
    for number in range(start, stop):
        name = f"{prefix}-{number:07d}"
        truth = survey.truth(name)
        if truth["class_index"] is None:
            continue
        cutout = _served(survey, name, number)
        prepared = prepare(cutout, preparation)
        if prepared.status == status.OK:
            images.append(_in_grey(prepared.pixels, number))
            truths.append(truth | {"source_id": name})
    size = preparation.size_px
    shape = (-1, channels(preparation), size, size)
    return np.array(images, np.uint8).reshape(shape), truths


def _served(survey: Survey, name: str, number: int) -> Cutout:
    """Every second optical cutout as the viewer's JPEG, the form in which Galaxy10 DECaLS came."""
    source = Source(name, 180.0, 0.0)
    cutout = survey.decode(survey.download(source)[0], source)
    if cutout.bands != "grz" or number % 2 == 0:
        return cutout
    colours = np.round(viewer_composite(cutout.pixels, cutout.bands) * cutout.observed * 255).astype(np.uint8)
    body = io.BytesIO()
    Image.fromarray(colours.transpose(1, 2, 0)).save(body, "JPEG", quality=75 + number % 20)
    pixels = np.asarray(Image.open(body).convert("RGB")).transpose(2, 0, 1)
    return replace(cutout, pixels=np.ascontiguousarray(pixels), bands=BANDS_OF_PICTURES, rendered=True)


def _in_grey(pixels: np.ndarray, number: int) -> np.ndarray:
    """Every third colour image in r alone, in a stretch of its own: pictures of other surveys have theirs."""
    if len(pixels) == 1 or number % 3:
        return pixels
    rng = np.random.default_rng(number)
    grey = pixels[1] / 255
    level, gamma = rng.uniform(0.02, 0.2), np.exp(rng.uniform(-0.4, 0.7))
    grey = np.clip(grey - np.median(grey) + level, 0, None)
    grey = (grey / grey.max()) ** gamma
    return np.repeat(np.round(255 * grey).astype(np.uint8)[None], 3, axis=0)


# --------------------------------------------------------------------------------------------- training


def train(task: str, model: Path, count: int, epochs: int | None, seed: int, workers: int) -> None:
    """Draw, train, and write a model file with its card."""
    from galgaze.models.model_file import save_model
    from galgaze.models.runtime import best_device
    from galgaze.models.training import train_network

    settings = TRAINING[task].model_copy(update={"seed": seed, **({"epochs": epochs} if epochs else {})})
    drawn = simulated_set(task, count, f"{task}-{seed}", workers)
    print(f"{len(drawn.label)} simulated images", flush=True)
    data = TrainingData(
        frame=pd.DataFrame({"source_id": drawn.source_id, "ra_deg": np.nan, "dec_deg": np.nan, "label": drawn.label}),
        image=drawn.image,
        votes=drawn.votes if answers_questions(settings) else None,
        real=False,
        description={
            "survey": open_survey(SURVEYS[task]).identity(),
            "licence": "simulated images only; none of others' data",
            "command": f"python -m benchmarks.simulated_to_real train {task} MODEL --count {count} --seed {seed}",
        },
        identity={"images": hashlib.sha256(drawn.image).hexdigest()},
    )
    inputs = {"settings": settings.model_dump(), "initial_weights": None, **data.identity}

    def on_epoch(record, resumable) -> None:
        print(
            f"epoch {record.epoch}: loss {record.training_loss:.3f}, accuracy {record.training_accuracy:.3f}; "
            f"fresh simulated {record.validation_loss:.3f}, {record.validation_accuracy:.3f}",
            flush=True,
        )

    def fit(network, training, validation) -> list:
        return train_network(network, training, validation, settings, best_device(), on_epoch)

    trained = train_model(task, PREPARATIONS[task], data, settings, inputs, fit)
    save_model(model, trained.network, trained.card, trained.extras)
    print(f"{model}: accuracy on fresh simulated sources {trained.card.metrics['validation']['accuracy']:.3f}")


def _probability(network, image: np.ndarray) -> np.ndarray:
    import torch

    from galgaze.models.runtime import best_device
    from galgaze.models.training import predict_logits

    logits = predict_logits(network.to(best_device()), torch.from_numpy(image), device=best_device())
    return torch.softmax(logits.double(), dim=1).numpy()


# ------------------------------------------------------------------------------------------- evaluation


def evaluate(model: Path, data: Path, half: str) -> None:
    """Print how well the model does on the real images."""
    from galgaze.models.model_file import load_network

    network, card = load_network(model)
    classes = card.classes
    print(f"{model}, the half to {half} {'on' if half == 'report' else 'by'}; +- is one standard error")
    if card.task == "radio_fr":
        real = mirabest(data, PREPARATIONS[card.task]).half(half)
        _print_classes("MiraBest, confident FRI and FRII", _probability(network, real.image), real, classes)
        return
    real = galaxy10_sample(data, PREPARATIONS[card.task]).half(half)
    _print_classes("Galaxy10 DECaLS, ten classes", _probability(network, real.image), real, classes)
    real = sdss_bars(data, PREPARATIONS[card.task]).half(half)
    barred = _barred(network, card, real.image)
    auc = _auc(barred, real.label)
    print(f"SDSS discs in r, barred or not: n {len(real.label)}, AUC {auc:.3f} +- {_auc_error(auc, real.label):.3f}")


def _barred(network, card, image: np.ndarray) -> np.ndarray:
    """How barred discs look (N,): by the answer to that question, else among the three classes of spirals."""
    import torch

    from galgaze.models.questions import barred_probability
    from galgaze.models.runtime import best_device, to_network_input

    if card.questions:
        network.to(best_device())
        with torch.inference_mode():
            parts = [
                network.examine(to_network_input(part.to(best_device()))) for part in torch.from_numpy(image).split(64)
            ]
            return torch.cat([barred_probability(said.answers) for said in parts]).double().cpu().numpy()
    probability = _probability(network, image)[:, [card.classes.index(name) for name in SPIRALS]]
    return probability[:, 0] / probability.sum(axis=1)


def _print_classes(title: str, probability: np.ndarray, real: RealImages, classes: list[str]) -> None:
    prediction = probability.argmax(axis=1)
    share = float((prediction == real.label).mean())
    error = np.sqrt(share * (1 - share) / len(real.label))
    print(f"{title}: n {len(real.label)}, accuracy {share:.3f} +- {error:.3f}")
    if len(classes) == 2:
        auc = _auc(probability[:, 1], real.label)
        print(f"AUC {auc:.3f} +- {_auc_error(auc, real.label):.3f}")
    print("confusion matrix (rows: the label, columns: said):")
    width = max(map(len, classes))
    for name, row in zip(classes, confusion_matrix(prediction, real.label, len(classes)), strict=True):
        print(f"  {name:<{width}} {' '.join(f'{count:4d}' for count in row)}")


def _auc(score: np.ndarray, label: np.ndarray) -> float:
    return roc_auc(np.column_stack([1 - score, score]), label)


def _auc_error(auc: float, label: np.ndarray) -> float:
    """Standard error of an area under the curve (Hanley & McNeil 1982, Radiology 143, 29)."""
    positive, negative = int(label.sum()), int((1 - label).sum())
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (positive - 1) * (q1 - auc**2) + (negative - 1) * (q2 - auc**2)
    return float(np.sqrt(variance / (positive * negative)))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("task", choices=list(SURVEYS))
    training.add_argument("model", type=Path)
    training.add_argument("--count", type=int, default=12000, help="simulated sources")
    training.add_argument("--epochs", type=int)
    training.add_argument("--seed", type=int, default=1)
    training.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that draw")
    scoring = commands.add_parser("evaluate")
    scoring.add_argument("model", type=Path)
    scoring.add_argument("data", type=Path, help="folder of real images")
    scoring.add_argument("--half", choices=("steer", "report"), default="report")
    words = parser.parse_args()
    if words.command == "train":
        train(words.task, words.model, words.count, words.epochs, words.seed, words.workers)
    else:
        evaluate(words.model, words.data, words.half)


if __name__ == "__main__":
    main()
