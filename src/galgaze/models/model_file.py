"""A model in one file that a person can mail: weights as safetensors, and the card that says what they are.

Nothing in it is executed when it is read. The card stands in the file's metadata under ``galgaze_card``.
"""

import importlib.metadata
import json
import os
import struct
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from galgaze.config import NetworkSettings, PreparationSettings
from galgaze.errors import ConfigError
from galgaze.files import atomic_path
from galgaze.tasks import QUESTIONS, TASKS

CARD_KEY = "galgaze_card"
EXTRA = "@"  # what tensors that are no weights are named with
TRAINING_ROLES = ("training", "validation")  # by number in a model file
CONFIGURED_ARCHITECTURES = ("agcnn", "equivariant_agcnn", "attention_vgg", "bar_network")
MAX_HEADER_BYTES = 10_000_000


class Calibration(BaseModel):
    """How raw probabilities become confidences."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["temperature"]
    temperature: float = Field(gt=0)


class ModelCard(BaseModel):
    """What the weights are, and what they may be fed.

    Attributes
    ----------
    task : str
        The task; `classes` must be its classes, in its order.
    architecture : dict
        ``name`` and the settings to build the network with.
    classes : list of str
        In the order of the outputs.
    preparation : dict
        `galgaze.images.preparation.preparation_identity` of the images trained on.
    calibration : Calibration or None
        None: confidences are not given.
    questions : list of str
        Names of the Galaxy Zoo questions (`galgaze.tasks.QUESTIONS`) that the network answers, in its order.
    test_time_turns : int
        Over how many views of an image (turned, mirrored) predictions are averaged; 1: as it is.
    training_data, metrics : dict
        For people: on what it was trained, and how well it did.
    seed : int or None
        Of the training.
    software : dict
        Versions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    task: str
    architecture: dict
    classes: list[str]
    channels: int
    preparation: dict
    calibration: Calibration | None = None
    questions: list[str] = []
    test_time_turns: Literal[1, 4, 8, 16, 32] = 1
    training_data: dict = {}
    metrics: dict = {}
    seed: int | None = None
    software: dict = {}


def architecture_of(network: NetworkSettings) -> dict:
    """A card's ``architecture`` from the configured network."""
    return network.model_dump(exclude={"architecture"}) | {"name": network.architecture}


def software_versions() -> dict[str, str]:
    """A card's ``software``: the versions that decide what a training gives."""
    return {name: importlib.metadata.version(name) for name in ("galgaze", "torch", "numpy")}


def save_model(path: str | Path, network, card: ModelCard, extras: dict | None = None) -> None:
    """Write weights and card into one file, atomically.

    Parameters
    ----------
    path : str or Path
        The file.
    network : torch.nn.Module
        Its weights.
    card : ModelCard
        What they are.
    extras : dict of str to torch.Tensor, optional
        What else belongs to the model, see `load_extras`.
    """
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    tensors |= {EXTRA + name: tensor.detach().cpu().contiguous() for name, tensor in (extras or {}).items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={CARD_KEY: card.model_dump_json()})


def load_extras(path: str | Path) -> dict:
    """Tensors of a model file that are no weights, by name.

    Those that exist so far: ``training_position_deg`` (N, 2) float64, right ascension and declination of the real
    sources that the model was trained or validated on, and ``training_role`` (N,) uint8, 0 training, 1 validation;
    ``feature_mean`` (K, D) and ``feature_precision`` (D, D), ``feature_distance`` (Q,): `galgaze.models.novelty`.
    """
    return {name.removeprefix(EXTRA): tensor for name, tensor in _read_tensors(path).items() if name.startswith(EXTRA)}


def knows_its_sources(card: ModelCard) -> bool:
    """Whether a model file tells the positions of all real sources that the model was trained on."""
    return card.training_data.get("positions_unknown") == 0


def _read_tensors(path: str | Path) -> dict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ConfigError(f"{path}: the weights cannot be read: {' '.join(str(error).split())[:300]}") from error


def load_weights(network, path: str | Path) -> None:
    """Put a model file's weights into a bare network of its architecture.

    Raises
    ------
    ConfigError
        If they do not fit it, or are not all finite.
    """
    tensors = {name: tensor for name, tensor in _read_tensors(path).items() if not name.startswith(EXTRA)}
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise ConfigError(f"{path}: {broken[0]} holds NaN or infinity; the training that made these weights failed.")
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise ConfigError(f"{path}: the weights do not fit the model's card: {detail}") from error


def read_card(path: str | Path) -> ModelCard:
    """Read the card alone; quick, and without loading torch.

    Raises
    ------
    ConfigError
        If the file is missing, is no safetensors file, or has no valid card.
    """
    path = Path(path)
    advice = "Give a model file that galgaze wrote, or train one (`model: train:`)."
    try:
        with open(path, "rb") as content:
            (length,) = struct.unpack("<Q", content.read(8))
            if length > MAX_HEADER_BYTES:
                raise ValueError("the header is absurdly long")
            header = json.loads(content.read(length))
            text = header.pop("__metadata__")[CARD_KEY]
            whole = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
            size = content.seek(0, os.SEEK_END)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the model file ({error.strerror}). {advice}") from error
    except (ValueError, struct.error, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: this is not a galgaze model file (safetensors with a card). {advice}") from error
    if size != whole:
        raise ConfigError(f"{path}: the weights are cut short or damaged ({size} bytes, expected {whole}). {advice}")
    try:
        card = ModelCard.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"{path}: the model's card cannot be read: {error.errors()[0]['msg']}. {advice}") from error
    _check_classes(path, card)
    _check_architecture(path, card)
    return card


def _check_classes(path: Path, card: ModelCard) -> None:
    if card.task not in TASKS:
        raise ConfigError(f"{path}: the model is for the unknown task {card.task!r}; known are {', '.join(TASKS)}.")
    expected = list(TASKS[card.task].classes)
    if card.classes != expected:
        raise ConfigError(
            f"{path}: the model's classes are {card.classes}; {card.task} has, in this order, {expected}."
        )


def _check_architecture(path: Path, card: ModelCard) -> None:
    """Refuse settings that no network has; an exported network's are its own."""
    known = [question.name for question in QUESTIONS]
    if card.questions not in ([], known):
        raise ConfigError(f"{path}: the model's questions are {card.questions}; expected, in this order, {known}.")
    settings = dict(card.architecture)
    name = settings.pop("name", None)
    if name not in CONFIGURED_ARCHITECTURES:
        return  # the registry says what it makes of it
    try:
        TypeAdapter(NetworkSettings).validate_python(settings | {"architecture": name})
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"][1:])
        raise ConfigError(f"{path}: the card's architecture cannot be built: {where}: {problem['msg']}.") from error


def check_fits_task(path: str | Path, card: ModelCard, task: str, preparation: PreparationSettings) -> None:
    """Refuse a model that was made for another task, or for other images.

    `min_coverage` may differ: it decides which images are predicted, not how they look.
    """
    from galgaze.images.preparation import channels, preparation_identity

    if card.task != task:
        raise ConfigError(f"{path}: the model is for {card.task}, the configuration wants {task}.")
    if card.channels != channels(preparation):
        raise ConfigError(
            f"{path}: the model reads images of {card.channels} channels, those of {task} have {channels(preparation)}."
        )
    ours = {key: value for key, value in preparation_identity(preparation).items() if key != "min_coverage"}
    theirs = {key: value for key, value in card.preparation.items() if key != "min_coverage"}
    differing = sorted(key for key in ours | theirs if ours.get(key) != theirs.get(key))
    if differing:
        pairs = "; ".join(f"{key}: model {theirs.get(key)}, configuration {ours.get(key)}" for key in differing)
        raise ConfigError(
            f"{path}: the model was made for images prepared otherwise ({pairs}). Set tasks.{task}.preparation to "
            "the model's, or use another model."
        )


def load_network(path: str | Path):
    """The network with its weights, ready to predict (with its views of an image, if it has several), and its card.

    Raises
    ------
    ConfigError
        If card or weights cannot be used.
    """
    from galgaze.models.registry import build_network

    card = read_card(path)
    try:
        network = build_network(card)
    except (RuntimeError, TypeError, ValueError, KeyError, IndexError) as error:
        detail = " ".join(str(error).split())[:300]
        raise ConfigError(f"{path}: the card's architecture cannot be built: {detail}") from error
    load_weights(network, path)
    if card.test_time_turns > 1:
        from galgaze.models.combined import TurnedViews

        network = TurnedViews(network, card.test_time_turns)
    return network.eval(), card
