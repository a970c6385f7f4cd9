"""Stage 3: train a task's model on a labelled field; resumes where it was stopped."""

import io

import numpy as np
import pandas as pd

from galgaze.errors import ConfigError
from galgaze.files import marker_holds, restore_marker, sha256_json, write_bytes, write_marker
from galgaze.images.preparation import channels, preparation_identity
from galgaze.images.store import read_shard
from galgaze.stages.context import Run, read_sources
from galgaze.stages.fetch import say
from galgaze.stages.plan import read_record
from galgaze.stages.shards import check_store_shard
from galgaze.tasks import TASKS

TRAINING_VERSION = 1
FEWEST_A_CLASS = 2


def train(run: Run, task: str) -> str:
    """Train the model of a task; gives a line that says what was done."""
    settings, layout = run.train_settings(task), run.layout
    images = run.training_images(task)
    frame, pixels, hashes = _labelled_images(run, task)
    preparation = preparation_identity(run.task(task).preparation)
    inputs = {
        "version": TRAINING_VERSION,
        "settings": settings.model_dump(),
        "preparation": preparation,
        "images": sha256_json(hashes),
        "labels": sha256_json(frame[["source_id", "label", "ra_deg", "dec_deg"]].values.tolist()),
    }
    marker = layout.model(task).with_suffix(".json")
    restore_marker(marker)
    if marker_holds(marker, inputs):
        return f"{task}: already trained"

    import torch

    from galgaze.models.model_file import ModelCard, architecture_of, save_model, software_versions
    from galgaze.models.registry import build_network
    from galgaze.models.runtime import best_device, tune_allocator
    from galgaze.models.training import split_by_position, train_network

    classes = list(TASKS[task].classes)
    frame["validation"] = split_by_position(
        frame["source_id"].to_numpy(),
        frame["ra_deg"],
        frame["dec_deg"],
        settings.validation_fraction,
        settings.seed,
    )
    _check_split(frame, task, images.field)
    tune_allocator()
    torch.set_num_threads(settings.torch_threads)
    torch.manual_seed(settings.seed)
    card = ModelCard(
        task=task,
        architecture=architecture_of(settings.network),
        classes=classes,
        channels=channels(run.task(task).preparation),
        preparation=preparation,
        training_data=_describe_data(frame, images, inputs),
        seed=settings.seed,
        software=software_versions(),
    )
    network = build_network(card)
    training, validation = _to_tensors(frame, pixels, classes)
    state = _resume(layout.checkpoint(task), inputs)
    if state:
        say(f"train {task}: going on after epoch {len(state['curve'])}")

    def on_epoch(record, resumable) -> None:
        say(
            f"train {task}: epoch {record.epoch} of {settings.epochs}: loss {record.training_loss:.3f}, validation "
            f"{record.validation_loss:.3f}, accuracy {record.training_accuracy:.3f}, validation "
            f"{record.validation_accuracy:.3f}"
        )
        buffer = io.BytesIO()
        torch.save({"inputs": sha256_json(inputs), **resumable()}, buffer)
        write_bytes(layout.checkpoint(task), buffer.getvalue())

    curve = train_network(network, training, validation, settings, best_device(), on_epoch, state)
    metrics = _metrics(network, validation, classes, curve)
    save_model(layout.model(task), network, card.model_copy(update={"metrics": metrics}))
    write_bytes(layout.training_curve(task), pd.DataFrame(curve).to_csv(index=False).encode())
    _write_sources(run, task, frame)
    layout.checkpoint(task).unlink(missing_ok=True)
    written = [layout.model(task), layout.training_curve(task), layout.training_sources(task)]
    write_marker(marker, inputs, written)
    return f"{task}: trained {len(curve)} epochs, validation accuracy {metrics['validation']['accuracy']:.3f}"


def _labelled_images(run: Run, task: str) -> tuple[pd.DataFrame, np.ndarray, list[dict]]:
    """The field's usable, labelled sources, their images (N, C, H, W) uint8, and the store's hashes."""
    images, layout = run.training_images(task), run.layout
    record = read_record(run, images.field)
    if record is None:
        raise ConfigError(f"The field {images.field} has no plan yet: `galgaze plan`.")
    frames, pixels, hashes = [], [], []
    for shard in range(record["shards"]):
        hashes.append(check_store_shard(layout, images.field, images.store, shard))
        rows = read_shard(layout.store(images.field, images.store), shard, ("image", "valid", "source_id"))
        plan = read_sources(layout, images.field, shard)
        labelled = plan["label"].isin(TASKS[task].classes) & plan["requested"]
        usable = rows.valid[plan["position"]] & labelled.to_numpy()
        frames.append(plan[usable])
        pixels.append(rows.image[plan["position"][usable]])
    if not sum(map(len, frames)):
        raise ConfigError(
            f"tasks.{task}.model.train.field: none of the usable sources of {images.field} has a label of this task. "
            f"Name the label column (fields.{images.field}.table.columns.label) and map its values to the classes "
            f"({', '.join(TASKS[task].classes)}) under fields.{images.field}.labels."
        )
    return pd.concat(frames, ignore_index=True), np.concatenate(pixels), hashes


def _check_split(frame: pd.DataFrame, task: str, field: str) -> None:
    counts = frame[~frame["validation"]]["label"].value_counts()
    few = [name for name in TASKS[task].classes if counts.get(name, 0) < FEWEST_A_CLASS]
    if few or not frame["validation"].any():
        what = f"the classes {', '.join(few)} have fewer than {FEWEST_A_CLASS} sources" if few else "none are left"
        raise ConfigError(
            f"tasks.{task}.model.train: the field {field} is too small: after setting aside those to validate "
            f"on, {what}. Label more sources."
        )


def _to_tensors(frame: pd.DataFrame, pixels: np.ndarray, classes: list[str]):
    import torch

    from galgaze.models.training import LabelledImages

    label = torch.tensor([classes.index(name) for name in frame["label"]])
    sides = [np.flatnonzero(~frame["validation"]), np.flatnonzero(frame["validation"])]
    return [LabelledImages(torch.from_numpy(pixels[side]), label[side]) for side in sides]


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


def _metrics(network, validation, classes: list[str], curve) -> dict:
    import torch

    from galgaze.measures.evaluation import evaluate_predictions
    from galgaze.models.training import predict_logits

    probability = torch.softmax(predict_logits(network.cpu(), validation.image).double(), dim=1).numpy()
    label = validation.label.numpy()
    share = np.bincount(label, minlength=len(classes)).max() / len(label)
    return {
        "epochs": len(curve),
        "validation": evaluate_predictions(probability, label, classes),
        "largest_class_share": float(share),
    }


def _describe_data(frame: pd.DataFrame, images, inputs: dict) -> dict:
    counts = frame.groupby("label")["validation"].agg(["size", "sum"])
    return {
        "field": images.field,
        "survey": images.survey,
        "training": int((~frame["validation"]).sum()),
        "validation": int(frame["validation"].sum()),
        "by_class": {name: int(row["size"]) for name, row in counts.iterrows()},
        "inputs_sha256": sha256_json(inputs),
    }


def _write_sources(run: Run, task: str, frame: pd.DataFrame) -> None:
    rows = frame[["source_id", "ra_deg", "dec_deg", "label"]].copy()
    rows["role"] = np.where(frame["validation"], "validation", "training")
    buffer = io.BytesIO()
    rows.to_parquet(buffer, index=False)
    write_bytes(run.layout.training_sources(task), buffer.getvalue())
