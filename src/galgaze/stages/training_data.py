"""What a model is trained on: labelled images of a field, or a published set; checked before anything is learnt."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from galgaze.config import TrainSettings
from galgaze.errors import ConfigError
from galgaze.files import sha256_file, sha256_json
from galgaze.images.preparation import channels
from galgaze.images.store import read_shard
from galgaze.models.model_file import (
    architecture_of,
    check_fits_task,
    knows_its_sources,
    load_extras,
    load_network,
    read_card,
)
from galgaze.stages.context import Run, read_sources
from galgaze.stages.plan import read_record
from galgaze.stages.shards import check_store_shard
from galgaze.stages.terminal import say
from galgaze.tasks import NO_CLASS, QUESTIONS, TASKS

FEWEST_A_CLASS = 2
ANSWERS = sum(len(question.answers) for question in QUESTIONS)
VOTED_SETS = ("galaxy_zoo",)
TRAINING, VALIDATION = 0, 1  # a model file's training_role


@dataclass
class TrainingData:
    """Labelled images in memory.

    Attributes
    ----------
    frame : pandas.DataFrame
        source_id, ra_deg, dec_deg (NaN: unknown), and label: the class's index, -1: none.
    image : numpy.ndarray
        (N, C, H, W) uint8.
    votes : numpy.ndarray or None
        (N, A) vote fractions, NaN where not known; None for networks that answer no questions.
    real : bool
        Whether the positions are of sources on the real sky.
    description : dict
        For the model's card.
    identity : dict
        Hashes of all that is learnt from.
    """

    frame: pd.DataFrame
    image: np.ndarray
    votes: np.ndarray | None
    real: bool
    description: dict
    identity: dict


def answers_questions(settings: TrainSettings) -> bool:
    """Whether the network answers Galaxy Zoo's questions."""
    return settings.network.architecture == "bar_network"


def tells_classes(settings: TrainSettings) -> bool:
    """Whether the network tells the task's classes."""
    return getattr(settings.network, "class_head", True)


# ------------------------------------------------------------------------ what the configuration alone tells


def check_training(run: Run, task: str, load: bool = True) -> None:
    """Find what makes a training impossible, as far as it can be told without reading images.

    Raises
    ------
    ConfigError
        If a file that the training names is not there, questions and votes do not fit each other or the task, or the
        initial weights are of another network, task or preparation.
    """
    settings, where = run.train_settings(task), f"tasks.{task}.model.train"
    _check_size(settings, run.task(task).preparation.size_px, where)
    if settings.dataset:
        _check_dataset(settings, task, run.task(task).preparation, where)
    if answers_questions(settings):
        _check_votes_are_given(run, task, where)
    elif settings.votes:
        raise ConfigError(
            f"{where}.votes: the network {settings.network.architecture} answers no questions. Leave votes out, or set "
            f"{where}.network.architecture to bar_network."
        )
    if settings.dataset and settings.dataset.kind in VOTED_SETS and tells_classes(settings):
        raise ConfigError(
            f"{where}.dataset: {settings.dataset.kind} has votes and no classes. Set {where}.network.architecture to "
            "bar_network, with class_head: false."
        )
    if settings.initial_weights:
        _check_initial_weights(run, task, where, load)


def _check_size(settings: TrainSettings, size_px: int, where: str) -> None:
    flattened = getattr(settings.network, "flattened_px", None)
    if flattened is None or settings.network.gates:
        return
    if flattened != size_px:
        raise ConfigError(f"{where}.network.flattened_px: {flattened}, but the images are prepared with {size_px} px.")
    if settings.central_epochs:
        raise ConfigError(f"{where}.central_epochs: a network with flattened_px reads whole images only. Set it to 0.")


def _check_dataset(settings: TrainSettings, task: str, preparation, where: str) -> None:
    from galgaze.images.datasets.labelled import KINDS, check_radio_preparation

    dataset, kind = settings.dataset, TASKS[task].kind
    if KINDS[dataset.kind] != kind:
        fitting = ", ".join(name for name, of in KINDS.items() if of == kind)
        raise ConfigError(f"{where}.dataset.kind: {dataset.kind} is no set for {task}; those are: {fitting}.")
    paths = {"path": Path(dataset.path)}
    if dataset.kind == "galaxy_zoo":
        paths["table"] = Path(dataset.path) / dataset.table
    for key, path in paths.items():
        if not path.exists():
            raise ConfigError(f"{where}.dataset.{key}: {path} is not there. Download the set, or mend the path.")
    if kind == "radio":
        check_radio_preparation(dataset.kind, preparation)


def _check_votes_are_given(run: Run, task: str, where: str) -> None:
    settings = run.train_settings(task)
    if TASKS[task].kind != "optical":
        raise ConfigError(f"{where}.network: Galaxy Zoo's questions are asked of optical images, not of {task}'s.")
    if settings.dataset:
        if settings.dataset.kind not in VOTED_SETS:
            raise ConfigError(
                f"{where}.dataset: {settings.dataset.kind} has no votes, and a bar_network learns to answer questions. "
                f"Use {', '.join(VOTED_SETS)}, a field with votes, or another network."
            )
    elif run.config.fields[settings.field].simulated:
        if settings.votes:
            raise ConfigError(f"{where}.votes: the simulated field {settings.field} has its own. Leave votes out.")
    elif not settings.votes:
        raise ConfigError(
            f"{where}.votes: a bar_network learns to answer questions, and the field {settings.field} has no answers. "
            "Name a CSV or Parquet table of Galaxy Zoo vote fractions with a column source_id, train on a simulated "
            "field, or use another network."
        )
    elif not Path(settings.votes).is_file():
        raise ConfigError(f"{where}.votes: {settings.votes} is not there. Mend the path.")


def _check_initial_weights(run: Run, task: str, where: str, load: bool) -> None:
    settings, preparation = run.train_settings(task), run.task(task).preparation
    path = settings.initial_weights
    card = read_card(path)
    check_fits_task(path, card, task, preparation)
    ours, theirs = architecture_of(settings.network), card.architecture
    # What is dropped in training does not change what the weights are; a card of an older version has fewer settings.
    differing = [key for key in ours if key != "dropout" and key in theirs and ours[key] != theirs[key]]
    if differing:
        pairs = "; ".join(f"{key}: model {theirs[key]}, configuration {ours[key]}" for key in differing)
        raise ConfigError(
            f"{path}: these weights are of another network ({pairs}). Set {where}.network to the model's, or leave "
            "initial_weights out."
        )
    if load:
        load_network(path)  # says what is wrong with the weights themselves


# ------------------------------------------------------------------------------------------------- reading


def read_training_data(run: Run, task: str) -> TrainingData:
    """Read and check what a task's model is trained on.

    Raises
    ------
    ConfigError
        If nothing of it can be used, or it does not fit the task; the message says what to do.
    TransientError
        If a store has been damaged since it was written.
    """
    settings = run.train_settings(task)
    data = _from_dataset(run, task) if settings.dataset else _from_field(run, task)
    _check_images(data, run, task)
    _check_labels(data, task)
    _check_votes(data, task)
    usable = np.zeros(len(data.frame), bool)
    if tells_classes(settings):
        usable |= (data.frame["label"] != NO_CLASS).to_numpy()
    if data.votes is not None:
        usable |= np.isfinite(data.votes).any(axis=1)
    if not usable.any():
        raise ConfigError(_nothing_usable(run, task))
    return data if usable.all() else _rows(data, usable)


def _rows(data: TrainingData, chosen: np.ndarray) -> TrainingData:
    votes = None if data.votes is None else data.votes[chosen]
    frame = data.frame[chosen].reset_index(drop=True)
    return TrainingData(frame, data.image[chosen], votes, data.real, data.description, data.identity)


def _nothing_usable(run: Run, task: str) -> str:
    settings, classes = run.train_settings(task), ", ".join(TASKS[task].classes)
    if settings.dataset:
        return (
            f"tasks.{task}.model.train.dataset: no image of {settings.dataset.path} has a class of {task} ({classes})"
            f"{' or votes' if answers_questions(settings) else ''}."
        )
    return (
        f"tasks.{task}.model.train.field: none of the usable sources of {settings.field} has a label of this task. "
        f"Name the label column (fields.{settings.field}.table.columns.label) and map its values to the classes "
        f"({classes}) under fields.{settings.field}.labels."
    )


def _from_field(run: Run, task: str) -> TrainingData:
    """The field's usable sources that have a label or votes."""
    images, layout = run.training_images(task), run.layout
    record = read_record(run, images.field)
    if record is None:
        raise ConfigError(f"The field {images.field} has no plan yet: `galgaze plan`.")
    votes = _votes_of_field(run, task)
    frames, pixels, hashes = [], [], []
    for shard in range(record["shards"]):
        hashes.append(check_store_shard(layout, images.field, images.store, shard))
        rows = read_shard(layout.store(images.field, images.store), shard, ("image", "valid", "source_id"))
        plan = read_sources(layout, images.field, shard)
        known = plan["label"].isin(TASKS[task].classes)
        if votes is not None:
            known |= plan["source_id"].isin(votes.index)
        usable = rows.valid[plan["position"]] & (known & plan["requested"]).to_numpy()
        frames.append(plan[usable])
        pixels.append(rows.image[plan["position"][usable]])
    if not sum(map(len, frames)):
        raise ConfigError(_nothing_usable(run, task))
    plan = pd.concat(frames, ignore_index=True)
    frame = plan[["source_id", "ra_deg", "dec_deg"]].assign(label=_indices(plan["label"], task))
    values = None if votes is None else votes.reindex(frame["source_id"]).to_numpy(np.float32)
    return TrainingData(
        frame,
        np.concatenate(pixels),
        values,
        _is_real(run, images),
        {"field": images.field, "survey": images.survey},
        _identity(sha256_json(hashes), frame, values),
    )


def _indices(label: pd.Series, task: str) -> np.ndarray:
    """Class names to their indices, (N,) int64; anything else is none."""
    index = {name: number for number, name in enumerate(TASKS[task].classes)}
    return label.map(index).fillna(NO_CLASS).to_numpy(np.int64)


def _is_real(run: Run, images) -> bool:
    simulated = run.config.fields[images.field].simulated is not None
    return not (simulated or run.config.surveys[images.survey].kind.startswith("simulated"))


def _votes_of_field(run: Run, task: str) -> pd.DataFrame | None:
    """Vote fractions by source_id: a simulated field's from its truth, another's from its table."""
    settings = run.train_settings(task)
    if not answers_questions(settings):
        return None
    if run.config.fields[settings.field].simulated:
        from galgaze.surveys.simulated.votes import simulated_votes

        path = run.layout.truth(settings.field)
        if not path.exists():
            raise ConfigError(f"{path}: not there. Plan the field {settings.field} again: `galgaze plan`.")
        truth = pd.read_parquet(path)
        return pd.DataFrame(simulated_votes(truth), index=truth["source_id"])
    from galgaze.images.datasets.votes import read_votes

    return read_votes(Path(settings.votes))


def _from_dataset(run: Run, task: str) -> TrainingData:
    from galgaze.images.datasets import read_labelled_set

    settings = run.train_settings(task)
    labelled = read_labelled_set(settings.dataset, TASKS[task], run.task(task).preparation)
    frame = pd.DataFrame(
        {
            "source_id": labelled.source_id,
            "ra_deg": labelled.ra_deg,
            "dec_deg": labelled.dec_deg,
            "label": labelled.label,
        }
    )
    votes = labelled.votes if answers_questions(settings) else None
    if votes is None and answers_questions(settings):
        raise ConfigError(f"tasks.{task}.model.train.dataset: {settings.dataset.path} has no votes for a bar_network.")
    pixels = hashlib.sha256(np.ascontiguousarray(labelled.image)).hexdigest()
    description = {"dataset": settings.dataset.kind, **labelled.description}
    return TrainingData(frame, labelled.image, votes, True, description, _identity(pixels, frame, votes))


def _identity(images: str, frame: pd.DataFrame, votes: np.ndarray | None) -> dict:
    rows = frame[["source_id", "label", "ra_deg", "dec_deg"]].values.tolist()
    sha256 = None if votes is None else hashlib.sha256(np.ascontiguousarray(votes, np.float32)).hexdigest()
    return {"images": images, "labels": sha256_json(rows), "votes": sha256}


# -------------------------------------------------------------------------------------------------- checks


def _check_images(data: TrainingData, run: Run, task: str) -> None:
    preparation, image = run.task(task).preparation, data.image
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise ConfigError(f"tasks.{task}.model.train: an image holds NaN or infinite pixels. Get the set anew.")
    expected = (channels(preparation), preparation.size_px, preparation.size_px)
    if image.dtype != np.uint8 or image.shape[1:] != expected:
        raise ConfigError(
            f"tasks.{task}.model.train: the images must be uint8, {expected[0]} channels of {expected[1]} x "
            f"{expected[2]} px as {task} reads them; found {image.dtype}, {' x '.join(map(str, image.shape[1:]))}."
        )
    rows = {len(image), len(data.frame), *([] if data.votes is None else [len(data.votes)])}
    if len(rows) != 1 or not data.frame["source_id"].is_unique:
        raise ConfigError(f"tasks.{task}.model.train: images, labels, ids and votes do not belong together one to one.")


def _check_labels(data: TrainingData, task: str) -> None:
    label, classes = data.frame["label"].to_numpy(), TASKS[task].classes
    wrong = ~np.isin(label, np.arange(NO_CLASS, len(classes)))
    if wrong.any():
        raise ConfigError(
            f"tasks.{task}.model.train: {int(wrong.sum())} labels are no classes of {task}, the first of them "
            f"{label[wrong][0]} ({data.frame['source_id'][wrong].iloc[0]}); expected are 0 to {len(classes) - 1} "
            f"({', '.join(classes)}), or -1 for none."
        )


def _check_votes(data: TrainingData, task: str) -> None:
    votes = data.votes
    if votes is None:
        return
    if votes.ndim != 2 or votes.shape[1] != ANSWERS:
        raise ConfigError(
            f"tasks.{task}.model.train: votes of shape {votes.shape}, expected are the {ANSWERS} answers to "
            f"{', '.join(question.name for question in QUESTIONS)}."
        )
    wrong = ~(np.isnan(votes) | ((votes >= 0) & (votes <= 1)))  # infinite ones too
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ConfigError(
            f"tasks.{task}.model.train: votes must be fractions from 0 to 1, or empty; {data.frame['source_id'][row]} "
            f"has {votes[row, column]}. Divide counts by the question's sum of votes."
        )
    if not np.isfinite(votes).any():
        raise ConfigError(
            f"tasks.{task}.model.train.votes: no source of the training has votes there. Are their source_id those of "
            "the field?"
        )


# --------------------------------------------------------------------------------------------------- sides


def split(data: TrainingData, settings: TrainSettings, task: str) -> np.ndarray:
    """Which sources to validate on, (N,) bool; none that the initial weights have learnt from.

    Raises
    ------
    ConfigError
        If a side is too small.
    """
    from galgaze.models.splits import split_by_position

    frame, seen = data.frame, _learnt_before(data, settings)
    validation = split_by_position(
        frame["source_id"].to_numpy(str),
        frame["ra_deg"].to_numpy(float),
        frame["dec_deg"].to_numpy(float),
        frame["label"].to_numpy(),
        settings.validation_fraction,
        settings.seed,
        seen,
    )
    if not validation.any() and seen is not None and seen.any():
        raise ConfigError(
            f"{settings.initial_weights}: {int(seen.sum())} of the {len(frame)} sources stand within 60 arcsec of "
            "those that these weights were trained on, and nothing is left to validate on. Train on more sources, or "
            "from other weights."
        )
    _check_sides(frame["label"][~validation], validation, settings, task)
    return validation


def _check_sides(training_label: pd.Series, validation: np.ndarray, settings: TrainSettings, task: str) -> None:
    counts = training_label.value_counts()
    few = [name for index, name in enumerate(TASKS[task].classes) if counts.get(index, 0) < FEWEST_A_CLASS]
    few = few if tells_classes(settings) else []
    if not few and validation.any() and len(training_label) >= FEWEST_A_CLASS:
        return
    origin = f"the field {settings.field}" if settings.field else f"the set {settings.dataset.path}"
    what = f"the classes {', '.join(few)} have fewer than {FEWEST_A_CLASS} sources" if few else "none are left"
    advice = "Label more sources."
    if answers_questions(settings):
        advice += " To learn the answers to the questions alone, set network.class_head: false."
    raise ConfigError(
        f"tasks.{task}.model.train: {origin} is too small: after setting aside those to validate on, {what}. {advice}"
    )


def _learnt_before(data: TrainingData, settings: TrainSettings) -> np.ndarray | None:
    """Which sources the initial weights have been trained on, by position; None where that cannot be."""
    from galgaze.models.splits import near

    if not data.real:
        return None
    if settings.initial_weights and not knows_its_sources(read_card(settings.initial_weights)):
        say(
            f"WARNING: {settings.initial_weights} does not tell which sources it was trained on. If some of them are "
            "validated on here, accuracy and calibration will be too good."
        )
    position_deg, role = _earlier_sources(settings)
    if not len(role):
        return None
    return near(data.frame["ra_deg"], data.frame["dec_deg"], *position_deg[role == TRAINING].T)


def _earlier_sources(settings: TrainSettings) -> tuple[np.ndarray, np.ndarray]:
    """Positions (M, 2) in degrees, and roles (M,), of the sources that the initial weights know."""
    extras = load_extras(settings.initial_weights) if settings.initial_weights else {}
    if "training_position_deg" not in extras:
        return np.empty((0, 2)), np.empty(0, int)
    return extras["training_position_deg"].numpy(), extras["training_role"].numpy().astype(int)


def known_sources(data: TrainingData, validation: np.ndarray, settings: TrainSettings) -> dict[str, np.ndarray]:
    """For the model file: where the real sources stand that it, and its initial weights, have seen.

    Returns
    -------
    dict
        ``training_position_deg`` (M, 2) and ``training_role`` (M,) uint8, 0 training, 1 validation; what was validated
        on once and learnt from at another time counts as learnt from. No rows where all was simulated; sources of
        unknown position are missing (`galgaze.models.model_file.knows_its_sources`).
    """
    from galgaze.models.splits import near

    position_deg, role = _earlier_sources(settings)
    if data.real:
        now = data.frame[["ra_deg", "dec_deg"]].to_numpy(float)
        known = np.isfinite(now).all(axis=1)
        position_deg = np.concatenate([position_deg, now[known]])
        role = np.concatenate([role, np.where(validation, VALIDATION, TRAINING)[known]])
    if len(role):
        role[near(*position_deg.T, *position_deg[role == TRAINING].T)] = TRAINING
    rows = np.unique(np.column_stack([position_deg, role]), axis=0)
    return {"training_position_deg": rows[:, :2], "training_role": rows[:, 2].astype(np.uint8)}


def initial_weights_identity(settings: TrainSettings) -> str | None:
    """SHA-256 of the initial weights' file."""
    return sha256_file(settings.initial_weights) if settings.initial_weights else None
