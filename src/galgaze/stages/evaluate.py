"""How good a model is on a labelled set, and on those of its sources that it has not seen in training."""

from pathlib import Path

import numpy as np

from galgaze.config import (
    FrdeepDataset,
    Galaxy10Dataset,
    MirabestDataset,
    PreparationSettings,
    RadioGalaxyDataset,
)
from galgaze.errors import ConfigError
from galgaze.images.datasets import LabelledSet, read_labelled_folder, read_labelled_set
from galgaze.models.model_file import ModelCard, load_extras, load_network, read_card
from galgaze.models.splits import GROUP_RADIUS_ARCSEC, near
from galgaze.stages.terminal import say
from galgaze.tasks import TASKS

SETS = {
    "mirabest": MirabestDataset,
    "frdeep": FrdeepDataset,
    "radio_galaxy_dataset": RadioGalaxyDataset,
    "galaxy10": Galaxy10Dataset,
}
KINDS = (*SETS, "directory")


def evaluate(
    model: Path,
    dataset: str,
    split: str,
    subset: str,
    batch_size: int = 64,
    pixel_scale_arcsec: float | None = None,
) -> dict:
    """Evaluate a model file on a labelled set.

    Parameters
    ----------
    model : Path
        The model file.
    dataset : str
        ``KIND:PATH``, with a kind of `KINDS`.
    split : {"train", "test"}
        Of sets that have a test part of their own.
    subset : {"all", "confident"}
        Of MiraBest's labels.
    batch_size : int
        Images a forward pass.
    pixel_scale_arcsec : float or None
        Of pictures in a directory; None: unknown.

    Returns
    -------
    dict
        n, accuracy, auc, recall and precision by class, ece (of the calibrated probabilities where the model
        carries a calibration, else of the raw ones; ``calibration`` says which). Where the model file tells which
        sources it was trained on also ``n_trained_on`` and ``n_validated_on`` (within 60 arcsec of such a source),
        ``n_position_unknown``, and ``n_unseen`` and ``accuracy_unseen`` of the others.

    Raises
    ------
    ConfigError
        If model and set do not fit, or either cannot be read.
    """
    kind, _, path = dataset.partition(":")
    if kind not in KINDS or not path:
        raise ConfigError(f"--dataset {dataset!r}: expected {' or '.join(f'{name}:PATH' for name in KINDS)}.")
    card = read_card(model)
    if card.architecture.get("class_head") is False:
        raise ConfigError(f"{model}: the model answers questions and tells no classes: there is nothing to evaluate.")
    labelled = _read(kind, path, split, subset, _preparation(model, card), card, pixel_scale_arcsec)
    _check_shape(model, card, labelled.image)
    probability = _probabilities(model, labelled.image, batch_size)
    return _score(probability, labelled, card, load_extras(model))


def _read(kind, path, split, subset, preparation, card: ModelCard, pixel_scale_arcsec) -> LabelledSet:
    task = TASKS[card.task]
    if kind == "directory":
        labelled, left_out = read_labelled_folder(Path(path), task, preparation, pixel_scale_arcsec)
        for line in left_out:
            say(f"left out: {line}")
        return labelled
    more = {"subset": subset} if kind == "mirabest" else {}
    return read_labelled_set(SETS[kind](kind=kind, path=path, **more), task, preparation, split)


def _preparation(model: Path, card: ModelCard) -> PreparationSettings:
    """The preparation that a card names, as settings."""
    from pydantic import TypeAdapter, ValidationError

    values = {key: value for key, value in card.preparation.items() if key != "version"}
    try:
        return TypeAdapter(PreparationSettings).validate_python(values)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise ConfigError(f"{model}: the card's preparation is none that galgaze knows: {problem}.") from error


def _check_shape(model: Path, card: ModelCard, image: np.ndarray) -> None:
    size = card.preparation.get("size_px")
    if image.shape[1:] != (card.channels, size, size):
        channels, height, width = image.shape[1:]
        raise ConfigError(
            f"{model}: the model reads {card.channels} channels of {size} x {size} px, the set's images have "
            f"{channels} of {height} x {width} px."
        )


def _probabilities(model: Path, image: np.ndarray, batch_size: int) -> np.ndarray:
    """Class probabilities (N, K), calibrated where the model carries a calibration."""
    import torch

    from galgaze.models.runtime import best_device, tune_allocator
    from galgaze.models.training import predict_logits

    tune_allocator()
    network, card = load_network(model)
    logits = predict_logits(network.to(best_device()), torch.from_numpy(image), batch_size, best_device())
    temperature = card.calibration.temperature if card.calibration else 1.0
    return torch.softmax(logits.double() / temperature, dim=1).numpy()


def _score(probability: np.ndarray, labelled: LabelledSet, card: ModelCard, extras: dict) -> dict:
    from galgaze.measures.evaluation import accuracy, evaluate_predictions

    result = evaluate_predictions(probability, labelled.label, card.classes)
    result["calibration"] = card.calibration.method if card.calibration else "uncalibrated"
    if "training_position_deg" not in extras:
        return result
    positions = extras["training_position_deg"].numpy()
    role = extras["training_role"].numpy() if "training_role" in extras else np.zeros(len(positions), np.uint8)
    # as far apart as in a split: catalogues give a radio source's host, its core or its middle
    trained = near(labelled.ra_deg, labelled.dec_deg, *positions[role == 0].T)
    validated = near(labelled.ra_deg, labelled.dec_deg, *positions[role != 0].T) & ~trained
    unknown = ~np.isfinite(labelled.ra_deg)
    unseen = ~(trained | validated | unknown)
    return result | {
        "n_trained_on": int(trained.sum()),
        "n_validated_on": int(validated.sum()),
        "n_position_unknown": int(unknown.sum()),
        "n_unseen": int(unseen.sum()),
        "accuracy_unseen": accuracy(probability[unseen], labelled.label[unseen]),
    }


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
    return "\n".join(lines + (_describe_seen(result, number) if "n_unseen" in result else []))


def _describe_seen(result: dict, number) -> list[str]:
    """Lines that say on how many of the sources the model was trained."""
    seen = result["n_trained_on"], result["n_validated_on"]
    radius = f"{GROUP_RADIUS_ARCSEC:g} arcsec"
    lines = [
        f"n_trained_on     {seen[0]}  (within {radius} of a source that the model was trained on)",
        f"n_validated_on   {seen[1]}  (of one that it was validated on)",
    ]
    if result["n_position_unknown"]:
        lines.append(f"n_position_unknown {result['n_position_unknown']}  (may be either)")
    return [*lines, f"n_unseen         {result['n_unseen']}", f"accuracy_unseen  {number(result['accuracy_unseen'])}"]
