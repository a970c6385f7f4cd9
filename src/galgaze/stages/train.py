"""Stage 3: train a task's model on a labelled field or a published set; resumes where it was stopped."""

import io
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from galgaze.config import PreparationSettings, TrainSettings
from galgaze.errors import ConfigError
from galgaze.files import marker_holds, restore_marker, sha256_json, write_bytes, write_marker
from galgaze.images.preparation import channels, preparation_identity
from galgaze.stages.context import Run
from galgaze.stages.terminal import say
from galgaze.stages.training_data import (
    TrainingData,
    answers_questions,
    check_training,
    initial_weights_identity,
    known_sources,
    read_training_data,
    split,
    tells_classes,
)
from galgaze.tasks import NO_CLASS, QUESTIONS, TASKS

TRAINING_VERSION = 2
MACHINE_SETTINGS = {"dataset": {"path": True}, "votes": True, "initial_weights": True, "network": True}


def train(run: Run, task: str) -> str:
    """Train the model of a task; gives a line that says what was done.

    Raises
    ------
    ConfigError
        If there is nothing to train on, or it does not fit; before anything is learnt. If the training diverges.
    """
    check_training(run, task)
    settings, layout = run.train_settings(task), run.layout
    data = read_training_data(run, task)
    inputs = _inputs(run, task, data)
    marker = layout.model(task).with_suffix(".json")
    restore_marker(marker)
    if marker_holds(marker, inputs):
        return f"{task}: already trained"

    from galgaze.models.model_file import save_model

    def fit(network, training, validation) -> list:
        return _fit(run, task, network, training, validation, inputs)

    trained = train_model(task, run.task(task).preparation, data, settings, inputs, fit)
    save_model(layout.model(task), trained.network, trained.card, trained.extras)
    write_bytes(layout.training_curve(task), curve_table(trained.curve).to_csv(index=False).encode())
    _write_sources(run, task, data.frame)
    if layout.checkpoint(task).exists():
        layout.checkpoint(task).replace(layout.last_epoch(task))
    written = [layout.model(task), layout.training_curve(task), layout.training_sources(task)]
    write_marker(marker, inputs, written)
    return f"{task}: trained {len(trained.curve)} epochs, {_result(trained.card.metrics)}"


@dataclass(frozen=True)
class TrainedModel:
    """What a training gives: the network, its card and `galgaze.models.model_file.load_extras`, and the curve."""

    network: Any
    card: Any
    extras: dict
    curve: list


def train_model(
    task: str,
    preparation: PreparationSettings,
    data: TrainingData,
    settings: TrainSettings,
    inputs: dict,
    fit: Callable[[Any, Any, Any], list],
) -> TrainedModel:
    """Split, train, calibrate and describe.

    Parameters
    ----------
    task : str
        What to learn.
    preparation : PreparationSettings
        Of the images.
    data : TrainingData
        Images and labels; gives its images away, and its table gets the column ``validation``.
    settings : TrainSettings
        How to train.
    inputs : dict
        What the training was made from, for the card (``initial_weights`` and a hash of all).
    fit : callable
        Trains a network in place on two sides of labelled images, and gives the curve
        (`galgaze.models.training.train_network`).

    Raises
    ------
    ConfigError
        If data, network and initial weights do not fit, before anything is learnt; if the training diverges.
    """
    from galgaze.models.combined import TurnedViews
    from galgaze.models.runtime import best_device

    data.frame["validation"] = split(data, settings, task)
    card = _first_card(task, preparation, data, settings, inputs)
    network = _first_network(card, settings)
    training, validation = _sides(data, settings)
    _try_network(network, training, settings)
    curve = fit(network, training, validation)
    views = TurnedViews(network, settings.test_time_turns).to(best_device())  # as it will predict
    metrics, calibration = _assess(views, validation, card.classes, curve, best_device())
    card = card.model_copy(update={"metrics": metrics, "calibration": calibration})
    return TrainedModel(network, card, _extras(data, views, training, validation, settings), curve)


def _result(metrics: dict) -> str:
    if "validation" in metrics:
        return f"validation accuracy {metrics['validation']['accuracy']:.3f}"
    return f"question loss on validation sources {metrics['validation_question_loss']:.3f}"


def _inputs(run: Run, task: str, data: TrainingData) -> dict:
    settings = run.train_settings(task)
    return {
        "version": TRAINING_VERSION,
        "settings": settings.model_dump(),
        "preparation": preparation_identity(run.task(task).preparation),
        "initial_weights": initial_weights_identity(settings),
        **data.identity,
    }


# --------------------------------------------------------------------------------------- before the training


def _first_card(task: str, preparation, data: TrainingData, settings: TrainSettings, inputs: dict):
    from galgaze.models.model_file import ModelCard, architecture_of, software_versions

    return ModelCard(
        task=task,
        architecture=architecture_of(settings.network),
        classes=list(TASKS[task].classes),
        channels=channels(preparation),
        preparation=preparation_identity(preparation),
        questions=[question.name for question in QUESTIONS] if answers_questions(settings) else [],
        test_time_turns=settings.test_time_turns,
        training_data=_describe_data(task, data, settings, list(TASKS[task].classes), inputs),
        seed=settings.seed,
        software=software_versions(),
    )


def _describe_data(task: str, data: TrainingData, settings: TrainSettings, classes: list[str], inputs: dict) -> dict:
    frame = data.frame
    counts = frame["label"].value_counts()
    by_class = {name: int(counts[index]) for index, name in enumerate(classes) if index in counts}
    return {
        "command": f"galgaze train --task {task}",  # unless the data's own description says otherwise
        **data.description,
        "training": int((~frame["validation"]).sum()),
        "validation": int(frame["validation"].sum()),
        "by_class": by_class | ({"unlabelled": int(counts[NO_CLASS])} if NO_CLASS in counts else {}),
        "positions_unknown": _positions_unknown(data, settings),
        **_initial_weights(settings, inputs),
        # as configured, but for where things lie on this machine, and the network, which stands in the card itself
        "settings": settings.model_dump(exclude=MACHINE_SETTINGS),
        "inputs_sha256": sha256_json(inputs),
    }


def _positions_unknown(data: TrainingData, settings: TrainSettings) -> int | None:
    """How many real sources the model file cannot name by position; None where that is not known itself."""
    from galgaze.models.model_file import knows_its_sources, read_card

    if settings.initial_weights and not knows_its_sources(read_card(settings.initial_weights)):
        return None
    return int(data.frame[["ra_deg", "dec_deg"]].isna().any(axis=1).sum()) if data.real else 0


def _initial_weights(settings: TrainSettings, inputs: dict) -> dict:
    """Where the weights began, and what those had been trained on in turn."""
    from galgaze.models.model_file import knows_its_sources, read_card

    if not settings.initial_weights:
        return {}
    card = read_card(settings.initial_weights)
    return {
        "initial_weights": {
            "file": Path(settings.initial_weights).name,
            "sha256": inputs["initial_weights"],
            "training_data": card.training_data,
            "sources": "known" if knows_its_sources(card) else "not known: figures may be too good",
        }
    }


def _first_network(card, settings: TrainSettings):
    """The network as the training begins: from the seed, or from the initial weights."""
    import torch

    from galgaze.models.model_file import load_weights
    from galgaze.models.registry import build_network
    from galgaze.models.runtime import tune_allocator

    tune_allocator()
    torch.set_num_threads(settings.torch_threads)
    if torch.cuda.is_available():  # there, sums come in no fixed order unless asked for
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    torch.manual_seed(settings.seed)
    network = build_network(card)
    if settings.initial_weights:
        load_weights(network, settings.initial_weights)  # into the bare network, without its views
    return network


def _sides(data: TrainingData, settings: TrainSettings) -> list:
    """The images to learn from and those to validate on; `data` gives them away, so that they are not held twice."""
    import torch

    from galgaze.models.training import LabelledImages

    label = torch.from_numpy(data.frame["label"].to_numpy(np.int64, copy=True))
    if not tells_classes(settings):
        label[:] = NO_CLASS
    votes = None if data.votes is None else torch.tensor(data.votes, dtype=torch.float32)
    image, data.image = data.image, None
    return [
        LabelledImages(torch.from_numpy(image[side]), label[side], None if votes is None else votes[side])
        for side in (np.flatnonzero(~data.frame["validation"]), np.flatnonzero(data.frame["validation"]))
    ]


def _try_network(network, training, settings: TrainSettings) -> None:
    """Show the network one image of each size that it will see, so that what it cannot read is found now."""
    import torch

    from galgaze.models.augmentation import central_part
    from galgaze.models.runtime import to_network_input

    whole = training.image[:1]
    network.eval()
    for image in [whole, central_part(whole, settings.central_part)] if settings.central_epochs else [whole]:
        try:
            with torch.inference_mode():
                network.examine(to_network_input(image))
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"The network {settings.network.architecture} cannot read images of {image.shape[-1]} px: "
                f"{' '.join(str(error).split())[:200]}. Change size_px, central_epochs or the network."
            ) from error


# ---------------------------------------------------------------------------------------------- the training


def _fit(run: Run, task: str, network, training, validation, inputs: dict) -> list:
    """Train, with a checkpoint, a line and a row of the log an epoch; gives the training curve."""
    import torch

    from galgaze.models.runtime import best_device
    from galgaze.models.training import train_network

    settings, layout = run.train_settings(task), run.layout
    state = _resume(layout.checkpoint(task), inputs)
    done = len(state["curve"]) if state else 0
    if done:
        say(f"train {task}: going on after epoch {done}")
    warned: set[str] = set()

    def on_epoch(record, resumable) -> None:
        buffer = io.BytesIO()
        torch.save({"inputs": sha256_json(inputs), **resumable()}, buffer)
        log_epoch(log, record)  # before the checkpoint: a step that is logged twice is hidden, a missing one is not
        write_bytes(layout.checkpoint(task), buffer.getvalue())
        say(f"train {task}: {_line(record, settings.epochs)}")
        _warn(task, record, warned)

    with _open_log(layout.training_log(task), done) as log:
        return train_network(network, training, validation, settings, best_device(), on_epoch, state)


def _resume(checkpoint, inputs: dict) -> dict | None:
    """The state of an unfinished training on the same inputs."""
    import torch

    if not checkpoint.exists():
        return None
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception:  # whatever is wrong with it: start over
        return None
    return state if state.pop("inputs", None) == sha256_json(inputs) else None


def _line(record, epochs: int) -> str:
    line = f"epoch {record.epoch} of {epochs}: loss {record.training_loss:.3f}, validation {record.validation_loss:.3f}"
    if record.validation_accuracy is not None and record.training_accuracy is not None:
        line += f", accuracy {record.training_accuracy:.3f}, validation {record.validation_accuracy:.3f}"
    if record.validation_question_loss is not None:
        line += f", questions {record.validation_question_loss:.3f}"
    return line


def _warn(task: str, record, warned: set[str]) -> None:
    """Say what has become of the gates, each thing once; the centres of images are no measure of it."""
    from galgaze.models.gate_record import collapse_warnings

    for warning in [] if record.central else collapse_warnings(list(record.gates)):
        if warning not in warned:
            say(f"train {task}: WARNING: attention collapsed by epoch {record.epoch}: {warning}.")
            warned.add(warning)


def _open_log(folder, done: int):
    """TensorBoard's log; a new training begins a new one, a resumed one hides steps that will come again."""
    from torch.utils.tensorboard import SummaryWriter

    if not done:
        shutil.rmtree(folder, ignore_errors=True)
    return SummaryWriter(folder, purge_step=done + 1 if done else None)


def log_epoch(log, record) -> None:
    """One step of the log: losses, accuracies, learning rate, and the gates' statistics."""
    values = {
        "loss/training": record.training_loss,
        "loss/validation": record.validation_loss,
        "loss/validation_questions": record.validation_question_loss,
        "accuracy/training": record.training_accuracy,
        "accuracy/validation": record.validation_accuracy,
        "learning_rate": record.learning_rate,
    }
    for number, gate in enumerate(record.gates, start=1):
        values |= {f"gate_{number}/{name}": value for name, value in asdict(gate).items()}
    for name, value in values.items():
        if value is not None:
            log.add_scalar(name, value, record.epoch)
    log.flush()


# ----------------------------------------------------------------------------------------- after the training


def _assess(views, validation, classes: list[str], curve, device) -> tuple[dict, object]:
    """Metrics for the card, and the calibration (None without classes), on the validation sources.

    The temperature is fitted to the same sources that the calibrated error is given for: on others it will be larger.
    """
    from galgaze.models.gate_record import collapse_warnings

    best = min((row for row in curve if not row.central), key=lambda row: row.validation_loss)
    metrics: dict = {"epochs": len(curve), "best_epoch": best.epoch}
    if best.validation_question_loss is not None:
        metrics["validation_question_loss"] = best.validation_question_loss
    gates = list(best.gates)
    metrics |= {"gates": [asdict(gate) for gate in gates], "warnings": collapse_warnings(gates)}
    label = validation.label.numpy()
    known = label != NO_CLASS
    if not known.any():
        return metrics, None
    scores, calibration = _score_classes(views, validation, known, classes, device)
    share = np.bincount(label[known], minlength=len(classes)).max() / known.sum()
    return metrics | {"validation": scores, "largest_class_share": float(share)}, calibration


def _score_classes(views, validation, known: np.ndarray, classes: list[str], device):
    """Scores on those that have a class, and the calibration."""
    import torch

    from galgaze.measures.calibration import fit_temperature, softmax
    from galgaze.measures.evaluation import evaluate_predictions, expected_calibration_error
    from galgaze.models.model_file import Calibration
    from galgaze.models.training import predict_logits

    chosen = torch.from_numpy(known)
    logits = predict_logits(views, validation.image[chosen], device=device).double().numpy()
    label = validation.label[chosen].numpy()
    temperature = float(fit_temperature(logits, label))
    scores = evaluate_predictions(softmax(logits), label, classes)
    scores["ece_calibrated"] = expected_calibration_error(softmax(logits, temperature), label)
    return scores, Calibration(method="temperature", temperature=temperature)


def _extras(data: TrainingData, views, training, validation, settings: TrainSettings) -> dict:
    """What else goes into the model file: the positions it knows, and what its features are like."""
    import torch

    from galgaze.models.novelty import fit_novelty

    extras = {
        name: torch.from_numpy(values)
        for name, values in known_sources(data, data.frame["validation"].to_numpy(), settings).items()
    }
    return extras | fit_novelty(views, training.image, training.label, validation.image)


def curve_table(curve: list) -> pd.DataFrame:
    """The training curve as a table, a column for each statistic of each gate."""
    rows = []
    for record in curve:
        row = asdict(record)
        for number, gate in enumerate(row.pop("gates"), start=1):
            row |= {f"gate_{number}_{name}": value for name, value in gate.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def _write_sources(run: Run, task: str, frame: pd.DataFrame) -> None:
    rows = frame[["source_id", "ra_deg", "dec_deg"]].copy()
    names = dict(enumerate(TASKS[task].classes))
    rows["label"] = pd.array([names.get(index) for index in frame["label"]], dtype="string")
    rows["role"] = np.where(frame["validation"], "validation", "training")
    buffer = io.BytesIO()
    rows.to_parquet(buffer, index=False)
    write_bytes(run.layout.training_sources(task), buffer.getvalue())
