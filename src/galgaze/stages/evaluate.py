"""How good a model is on a labelled set."""

from pathlib import Path

import numpy as np

from galgaze.config import PreparationSettings
from galgaze.errors import ConfigError
from galgaze.images.datasets import read_labelled_directory, read_mirabest
from galgaze.models.model_file import ModelCard, load_network, read_card
from galgaze.stages.fetch import say
from galgaze.tasks import TASKS

KINDS = ("mirabest", "directory")


def evaluate(
    model: Path,
    dataset: str,
    split: str,
    subset: str,
    batch_size: int = 64,
    pixel_scale_arcsec: float | None = None,
) -> dict:
    """Evaluate a model file on ``mirabest:DIR`` or ``directory:DIR``.

    Returns
    -------
    dict
        n, accuracy, auc, recall and precision by class, ece (of the calibrated probabilities where the model
        carries a calibration, else of the raw ones; ``calibration`` says which).

    Raises
    ------
    ConfigError
        If model and set do not fit, or either cannot be read.
    """
    kind, _, folder = dataset.partition(":")
    if kind not in KINDS or not folder:
        raise ConfigError(f"--dataset {dataset!r}: expected {' or '.join(f'{name}:DIR' for name in KINDS)}.")
    card = read_card(model)
    image, label = _read(kind, Path(folder), split, subset, card, pixel_scale_arcsec)
    return _score(model, image, label, batch_size)


def _read(kind, folder, split, subset, card: ModelCard, pixel_scale_arcsec) -> tuple[np.ndarray, np.ndarray]:
    if kind == "mirabest":
        if card.task != "radio_fr":
            raise ConfigError(f"MiraBest has FR classes; the model is for {card.task}.")
        image, label = read_mirabest(folder, split, subset)
        size = card.preparation.get("size_px")
        if image.shape[-1] != size:
            raise ConfigError(f"MiraBest's images have {image.shape[-1]} px, the model was trained on {size} px.")
        return image, label
    preparation = _preparation(card)
    image, label, left_out = read_labelled_directory(folder, TASKS[card.task], preparation, pixel_scale_arcsec)
    for line in left_out:
        say(f"left out: {line}")
    return image, label


def _preparation(card: ModelCard) -> PreparationSettings:
    """The preparation that a card names, as settings."""
    from pydantic import TypeAdapter

    values = {key: value for key, value in card.preparation.items() if key != "version"}
    return TypeAdapter(PreparationSettings).validate_python(values)


def _score(model: Path, image: np.ndarray, label: np.ndarray, batch_size: int) -> dict:
    import torch

    from galgaze.measures.evaluation import evaluate_predictions
    from galgaze.models.runtime import best_device, tune_allocator
    from galgaze.models.training import predict_logits

    tune_allocator()
    network, card = load_network(model)
    logits = predict_logits(network.to(best_device()), torch.from_numpy(image), batch_size, best_device())
    temperature = card.calibration.temperature if card.calibration else 1.0
    probability = torch.softmax(logits.double() / temperature, dim=1).numpy()
    result = evaluate_predictions(probability, label, card.classes)
    return result | {"calibration": card.calibration.method if card.calibration else "uncalibrated"}


def describe(result: dict) -> str:
    """The numbers as lines for a terminal."""

    def number(value) -> str:
        return "-" if value is None else f"{value:.4f}"

    lines = [f"n          {result['n']}"]
    lines += [f"{name:<10} {number(result[name])}" for name in ("accuracy", "auc", "ece")]
    lines[-1] += f"  ({result['calibration']})"
    width = max(len(name) for name in result["recall"])
    lines.append(f"{'class':<{width}}  recall  precision")
    for name, recall in result["recall"].items():
        lines.append(f"{name:<{width}}  {number(recall)}  {number(result['precision'][name])}")
    return "\n".join(lines)
