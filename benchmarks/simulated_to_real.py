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
import io
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.real_images import RealImages, galaxy10_sample, mirabest, sdss_bars
from galgaze import status
from galgaze.config import (
    AgcnnSettings,
    OpticalPreparation,
    RadioPreparation,
    SimulatedFirstSurvey,
    SimulatedLegacySurvey,
    TrainSettings,
)
from galgaze.images.preparation import channels, preparation_identity, prepare, viewer_composite
from galgaze.measures.evaluation import confusion_matrix, evaluate_predictions, roc_auc
from galgaze.surveys.base import Cutout, Source, Survey
from galgaze.surveys.directory import BANDS_OF_PICTURES
from galgaze.surveys.registry import open_survey
from galgaze.tasks import TASKS

CHUNK = 50
VALIDATION_SHARE = 0.06
SPIRALS = ("barred_spiral", "unbarred_tight_spiral", "unbarred_loose_spiral")

SURVEYS = {
    "optical_morphology": SimulatedLegacySurvey(kind="simulated_legacy"),
    "radio_fr": SimulatedFirstSurvey(kind="simulated_first"),
}
PREPARATIONS = {"optical_morphology": OpticalPreparation(), "radio_fr": RadioPreparation(kind="radio_clip")}
TRAINING = {
    "optical_morphology": TrainSettings(
        field="simulated",
        network=AgcnnSettings(widths=[8, 24, 48, 96], gate_channels=16, dropout=0.2),
        epochs=14,
        central_epochs=11,
        batch_size=32,
        learning_rate=0.01,
    ),
    "radio_fr": TrainSettings(
        field="simulated",
        network=AgcnnSettings(gate_channels=16, dropout=0.3),
        epochs=10,
        central_epochs=8,
        batch_size=32,
        learning_rate=0.005,
    ),
}


# ------------------------------------------------------------------------------------- simulated images


def simulated_images(task: str, count: int, prefix: str, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, C, H, W) uint8 and class indices (N,) of simulated sources that have a class."""
    jobs = [(task, prefix, start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    with ProcessPoolExecutor(workers) as pool:
        images, labels = zip(*pool.map(_draw_chunk, jobs), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _draw_chunk(job: tuple[str, str, int, int]) -> tuple[np.ndarray, np.ndarray]:
    task, prefix, start, stop = job
    survey, preparation = open_survey(SURVEYS[task]), PREPARATIONS[task]
    images, labels = [], []
    for number in range(start, stop):
        name = f"{prefix}-{number:07d}"
        index = survey.truth(name)["class_index"]
        if index is None:
            continue
        cutout = _served(survey, name, number)
        prepared = prepare(cutout, preparation)
        if prepared.status == status.OK:
            images.append(_in_grey(prepared.pixels, number))
            labels.append(index)
    size = preparation.size_px
    shape = (-1, channels(preparation), size, size)
    return np.array(images, np.uint8).reshape(shape), np.array(labels, np.int64)


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
    import torch

    from galgaze.models.model_file import ModelCard, architecture_of, save_model, software_versions
    from galgaze.models.registry import build_network
    from galgaze.models.runtime import best_device, tune_allocator
    from galgaze.models.training import LabelledImages, train_network

    settings = TRAINING[task].model_copy(update={"seed": seed, **({"epochs": epochs} if epochs else {})})
    image, label = simulated_images(task, count, f"{task}-{seed}", workers)
    print(f"{len(label)} simulated images", flush=True)
    tune_allocator()
    torch.set_num_threads(settings.torch_threads)
    torch.manual_seed(seed)
    for_validation = round(VALIDATION_SHARE * len(label))
    training, validation = (
        LabelledImages(torch.from_numpy(image[part]), torch.from_numpy(label[part]))
        for part in (slice(for_validation, None), slice(for_validation))
    )
    survey = SURVEYS[task]
    card = ModelCard(
        task=task,
        architecture=architecture_of(settings.network),
        classes=list(TASKS[task].classes),
        channels=channels(PREPARATIONS[task]),
        preparation=preparation_identity(PREPARATIONS[task]),
        training_data={
            "survey": open_survey(survey).identity(),
            "training": len(training.label),
            "validation": len(validation.label),
            "licence": "simulated images only; none of others' data",
            "command": f"python -m benchmarks.simulated_to_real train {task} MODEL --count {count} --seed {seed}",
        },
        seed=seed,
        software=software_versions(),
    )
    network = build_network(card)

    def on_epoch(record, resumable) -> None:
        print(
            f"epoch {record.epoch}: loss {record.training_loss:.3f}, accuracy {record.training_accuracy:.3f}; "
            f"fresh simulated {record.validation_loss:.3f}, {record.validation_accuracy:.3f}",
            flush=True,
        )

    train_network(network, training, validation, settings, best_device(), on_epoch)
    scores = evaluate_predictions(
        _probability(network, validation.image.numpy()), validation.label.numpy(), card.classes
    )
    save_model(model, network, card.model_copy(update={"metrics": {"validation": scores}}))
    print(f"{model}: accuracy on fresh simulated sources {scores['accuracy']:.3f}")


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
    probability = _probability(network, real.image)[:, [classes.index(name) for name in SPIRALS]]
    barred = probability[:, 0] / probability.sum(axis=1)
    auc = _auc(barred, real.label)
    print(f"SDSS discs in r, barred or not: n {len(real.label)}, AUC {auc:.3f} +- {_auc_error(auc, real.label):.3f}")


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
