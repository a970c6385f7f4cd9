"""Stage 4: probabilities and attention statistics of every source, by Dask over the shards."""

import functools
from pathlib import Path

import numpy as np
import pyarrow as pa

from galgaze.catalogue.columns import (
    ATTENTION_STATISTICS,
    CLASSIFICATION,
    attention_column,
    catalogue_columns,
    probability_column,
    vote_column,
    vote_columns,
)
from galgaze.config import UncertaintySettings
from galgaze.errors import ConfigError
from galgaze.files import marker_holds, restore_marker, sha256_file, sha256_json, write_marker
from galgaze.images.store import ShardImages, read_shard
from galgaze.layout import Layout
from galgaze.models.model_file import check_fits_task, read_card
from galgaze.stages.context import Run
from galgaze.stages.plan import read_record
from galgaze.stages.shards import check_store_shard, map_shards, part_holds, write_part
from galgaze.tasks import TASKS

PREDICT_VERSION = 3  # raise when the same images and model give other numbers
STAGE = "predict"


def predict(run: Run, field: str, task: str, workers: int = 1, dask: str = "local") -> str:
    """Predict a whole field; gives a line that says what was done."""
    models = run.models(task)
    for path in models:
        check_fits_task(path, read_card(path), task, run.task(task).preparation)
    model_sha256 = models_sha256(models)
    settings = run.task(task)
    images = run.images(field, task)
    record = read_record(run, field)
    if record is None:
        raise ConfigError(f"The field {field} has no plan yet: `galgaze plan`.")
    layout, inputs, todo = run.layout, {}, {}
    for shard in range(record["shards"]):
        hashes = check_store_shard(layout, field, images.store, shard)
        inputs[shard] = {
            "store": hashes,
            "model": model_sha256,
            "uncertainty": settings.uncertainty.model_dump(),
            "version": PREDICT_VERSION,
        }
        if not part_holds(layout.part(field, task, STAGE, shard), inputs[shard]):
            todo[shard] = (
                str(layout.results.resolve()), field, task, images.store, shard, resolved(models), model_sha256,
                settings.batch_size, settings.uncertainty, inputs[shard],
            )  # fmt: skip
    marker = layout.stage_marker(field, task, STAGE)
    restore_marker(marker)
    if not todo and marker_holds(marker, _marker_inputs(inputs)):
        return f"{field} {task}: already predicted"
    predicted = map_shards(predict_shard, todo, f"predict {field} {task}", workers, dask)
    write_marker(marker, _marker_inputs(inputs), [layout.part(field, task, STAGE, shard) for shard in inputs])
    return f"{field} {task}: {predicted} sources predicted in {len(todo)} shards, {len(inputs) - len(todo)} kept"


def _marker_inputs(inputs: dict[int, dict]) -> dict:
    return {str(shard): value for shard, value in inputs.items()}


def resolved(models: list[Path]) -> tuple[str, ...]:
    """Model files as workers anywhere find them."""
    return tuple(str(path.resolve()) for path in models)


def models_sha256(models: list[Path]) -> str:
    """The model file's SHA-256; of an ensemble, the hash of its members' hashes."""
    hashes = [sha256_file(path) for path in models]
    return hashes[0] if len(hashes) == 1 else sha256_json(hashes)


@functools.lru_cache(maxsize=2)
def load_on_worker(models: tuple[str, ...], sha256: str):
    """The model, once a worker; the hash is part of the key so that a changed file is read again."""
    import torch

    from galgaze.models.loaded import load_model
    from galgaze.models.runtime import best_device, tune_allocator

    tune_allocator()
    torch.set_num_threads(1)  # the workers are the threads
    return load_model([Path(path) for path in models]).to(best_device())


def part_schema(task: str) -> pa.Schema:
    """Columns that prediction fills, from the column table."""
    columns = [column for column in catalogue_columns(TASKS[task]) if column.name in _part_names(task)]
    return pa.schema([pa.field(column.name, column.dtype) for column in columns])


def _part_names(task: str) -> set[str]:
    names = {"source_id", "status", "status_reason", "coverage_fraction", "pixel_scale_arcsec", "image_sha256"}
    names |= {column.name for column in CLASSIFICATION} | {column.name for column in vote_columns()}
    names |= {probability_column(name) for name in TASKS[task].classes} | {"model_sha256", "bar_probability"}
    return names | {c.name for c in catalogue_columns(TASKS[task]) if c.name.startswith("attention_")}


def predict_shard(
    results: str, field: str, task: str, store: str, shard: int, models: tuple[str, ...], model_sha256: str,
    batch_size: int, uncertainty: UncertaintySettings, inputs: dict,
) -> int:  # fmt: skip
    """Predict one shard and write its part; runs on a Dask worker. Gives the number of sources predicted."""
    layout = Layout(results)
    rows = read_shard(layout.store(field, store), shard)
    present = np.flatnonzero(rows.source_id != "")
    table = {row: _image_columns(rows, row) for row in present}
    valid = np.flatnonzero(rows.valid)
    for start in range(0, len(valid), batch_size):
        chosen = valid[start : start + batch_size]
        model = load_on_worker(models, model_sha256)
        for row, values in zip(chosen, _predict_batch(model, rows, chosen, task, uncertainty), strict=True):
            table[row] |= values | {"model_sha256": model_sha256}
    write_part(layout.part(field, task, STAGE, shard), list(table.values()), part_schema(task), inputs)
    return len(valid)


def _image_columns(rows: ShardImages, row: int) -> dict:
    return {
        "source_id": rows.source_id[row],
        "status": rows.status[row],
        "status_reason": rows.status_reason[row] or None,
        "coverage_fraction": float(rows.coverage[row]),
        "pixel_scale_arcsec": _number(rows.pixel_scale_arcsec[row]),
        "image_sha256": rows.image_sha256[row] or None,
    }


def _predict_batch(model, rows: ShardImages, chosen: np.ndarray, task: str, uncertainty) -> list[dict]:
    """Columns of some images, which the network sees together (each for itself)."""
    import torch

    from galgaze.models.runtime import best_device, to_network_input

    image = torch.from_numpy(rows.image[chosen]).to(best_device())  # (B, C, H, W)
    image = to_network_input(image).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        examinations = model.examine(image)
        probabilities = np.stack([_softmax(said.logits) for said in examinations])  # (M, B, K)
        values = {}
        if model.card.architecture.get("class_head", True):  # a model of votes alone has learnt no classes
            values |= _class_columns(model, examinations, probabilities)
            values |= _spread_columns(model, probabilities, image, uncertainty)
        values |= _novelty_columns(model, examinations, image)
        values |= _vote_columns(model, examinations)
    if TASKS[task].barred_class and "bar_probability" not in values:
        values["bar_probability"] = values[probability_column(TASKS[task].barred_class)]
    values |= _attention_columns(model, examinations, rows, chosen)
    return [{name: _value(column[i]) for name, column in values.items()} for i in range(len(chosen))]


def _class_columns(model, examinations, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Class and probabilities: the mean over the networks; so are confidences, each by its own calibration."""
    from galgaze.measures.predictions import entropy, margin

    probability = probabilities.mean(axis=0)  # (B, K)
    best = probability.argmax(axis=1)
    calibrations = [member.card.calibration for member in model.members]
    calibrated = all(calibrations)
    columns = {
        "class_label": np.array(model.card.classes, dtype=object)[best],
        "class_probability": probability.max(axis=1),
        "calibration": np.full(len(best), calibrations[0].method if calibrated else "uncalibrated", dtype=object),
        "class_entropy": entropy(probability),
        "class_margin": margin(probability),
    }
    if calibrated:
        confident = np.mean(
            [_softmax(said.logits, by.temperature) for said, by in zip(examinations, calibrations, strict=True)], axis=0
        )
        columns["confidence"] = confident[np.arange(len(best)), best]
    return columns | {probability_column(name): probability[:, k] for k, name in enumerate(model.card.classes)}


def _spread_columns(model, probabilities, image, uncertainty: UncertaintySettings) -> dict[str, np.ndarray]:
    """How far several networks, or one network thinned several times, disagree on the class that is named."""
    from galgaze.measures.uncertainty import spread
    from galgaze.models.dropout_passes import dropout_probabilities

    best = probabilities.mean(axis=0).argmax(axis=1)  # thinned networks may well name another
    if uncertainty.dropout_passes:
        passes = [
            dropout_probabilities(member.network, image, uncertainty.dropout_passes, uncertainty.seed + number).numpy()
            for number, member in enumerate(model.members)
        ]
        probabilities = np.concatenate(passes)
    if len(probabilities) == 1:
        return {}
    of_best = probabilities[:, np.arange(len(best)), best]  # (M, B)
    return {
        "probability_spread": of_best.std(axis=0),
        "mutual_information": spread(probabilities)["mutual_information"],
    }


def _novelty_columns(model, examinations, image) -> dict[str, np.ndarray]:
    """The mean of what the networks find, where each knows what it was trained on."""
    from galgaze.models.novelty import novelty, novelty_features

    if not all("feature_mean" in member.extras for member in model.members):
        return {}
    found = [
        novelty(novelty_features(said, image), member.extras).cpu().numpy()
        for said, member in zip(examinations, model.members, strict=True)
    ]
    return {"novelty": np.mean(found, axis=0)}


def _vote_columns(model, examinations) -> dict[str, np.ndarray]:
    """Predicted vote fractions, and the probability that a bar is seen, where the network answers questions."""
    import torch

    from galgaze.models.questions import ANSWERS, answer_fractions, asked_probability, barred_probability

    if not model.card.questions:
        return {}
    answers = torch.stack([said.answers for said in examinations]).double()  # (M, B, A)
    fractions = torch.stack([answer_fractions(member) for member in answers]).mean(dim=0).cpu().numpy()
    seen = torch.stack([asked_probability(member, "bar") * barred_probability(member) for member in answers])
    columns = {vote_column(*names): fractions[:, k] for k, names in enumerate(ANSWERS)}
    return columns | {"bar_probability": seen.mean(dim=0).cpu().numpy()}


def _attention_columns(model, examinations, rows: ShardImages, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of every gate's map; of an ensemble, of the mean map."""
    import torch

    columns = {}
    for gate, reduction in enumerate(model.network.attention_reductions):
        a = torch.stack([said.maps[gate] for said in examinations]).mean(dim=0)
        values = _attention(a, reduction, model, rows, chosen)
        columns |= {attention_column(name, gate + 1): value for name, value in values.items()}
    return columns


def _attention(a, reduction: int, model, rows: ShardImages, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of one gate's maps (B, h, w), of which a pixel is ``reduction`` pixels of the image."""
    from galgaze.measures.attention import attention_statistics
    from galgaze.models.attention import from_zero

    maps = from_zero(a, model.network.normalisation).double().cpu().numpy()
    jacobian = rows.jacobian_arcsec[chosen].astype(float) * reduction
    size_px, map_px = rows.image.shape[-1], maps.shape[-1]
    margin = np.mean([_margin_px(member, size_px, map_px * reduction) for member in model.members])
    # the same point on the coarser grid, which may begin outside of the image
    centre = (rows.centre_px[chosen].astype(float) + margin + 0.5) / reduction - 0.5
    statistics = attention_statistics(maps, jacobian, centre)
    return {name: np.asarray(getattr(statistics, name)) for name, *_ in ATTENTION_STATISTICS}


def _margin_px(member, size_px: int, covered_px: int) -> float:
    """How far a map that covers so many pixels begins before the image, whose side is ``size_px``.

    Poolings drop what is left over at the far side alone. But a network that pads rounds odd sides up, alike on both
    sides; and in the mean of views turned by 90 degrees what is dropped is dropped alike.
    """
    beyond = (covered_px - size_px) / 2
    if member.card.test_time_turns > 1:
        return beyond
    return max(beyond, member.network.padding_px(size_px))


def _softmax(logits, temperature: float = 1.0) -> np.ndarray:
    import torch

    return torch.softmax(logits.double() / temperature, dim=1).cpu().numpy()


def _value(value):
    """Numbers as floats, NaN as null; text as it is."""
    return value if isinstance(value, str) else _number(value)


def _number(value) -> float | None:
    """NaN becomes null."""
    return float(value) if np.isfinite(value) else None
