"""Stage 4: probabilities and attention statistics of every source, by Dask over the shards."""

import functools

import numpy as np
import pyarrow as pa

from galgaze.catalogue.columns import (
    ATTENTION_STATISTICS,
    attention_column,
    catalogue_columns,
    probability_column,
)
from galgaze.errors import ConfigError
from galgaze.files import marker_holds, restore_marker, sha256_file, write_marker
from galgaze.images.store import ShardImages, read_shard
from galgaze.layout import Layout
from galgaze.models.model_file import check_fits_task, read_card
from galgaze.stages.context import Run
from galgaze.stages.plan import read_record
from galgaze.stages.shards import check_store_shard, map_shards, part_holds, write_part
from galgaze.tasks import TASKS

PREDICT_VERSION = 1  # raise when the same images and model give other numbers
STAGE = "predict"


def predict(run: Run, field: str, task: str, workers: int = 1, dask: str = "local") -> str:
    """Predict a whole field; gives a line that says what was done."""
    model = run.model(task)
    check_fits_task(model, read_card(model), task, run.task(task).preparation)
    model_sha256 = sha256_file(model)
    images = run.images(field, task)
    record = read_record(run, field)
    if record is None:
        raise ConfigError(f"The field {field} has no plan yet: `galgaze plan`.")
    layout, inputs, todo = run.layout, {}, {}
    for shard in range(record["shards"]):
        hashes = check_store_shard(layout, field, images.store, shard)
        inputs[shard] = {"store": hashes, "model": model_sha256, "version": PREDICT_VERSION}
        if not part_holds(layout.part(field, task, STAGE, shard), inputs[shard]):
            todo[shard] = (
                str(layout.results.resolve()), field, task, images.store, shard, str(model.resolve()), model_sha256,
                run.task(task).batch_size, inputs[shard],
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


@functools.lru_cache(maxsize=2)
def load_on_worker(model: str, sha256: str):
    """The network, once a worker; the hash is part of the key so that a changed file is read again."""
    import torch

    from galgaze.models.model_file import load_network
    from galgaze.models.runtime import best_device, tune_allocator

    tune_allocator()
    torch.set_num_threads(1)  # the workers are the threads
    network, card = load_network(model)
    return network.to(best_device(), memory_format=torch.channels_last), card


def part_schema(task: str) -> pa.Schema:
    """Columns that prediction fills, from the column table."""
    columns = [column for column in catalogue_columns(TASKS[task]) if column.name in _part_names(task)]
    return pa.schema([pa.field(column.name, column.dtype) for column in columns])


def _part_names(task: str) -> set[str]:
    names = {
        "source_id",
        "status",
        "status_reason",
        "coverage_fraction",
        "pixel_scale_arcsec",
        "image_sha256",
    }
    names |= {
        "class_label",
        "class_probability",
        "confidence",
        "calibration",
        "class_entropy",
        "class_margin",
    }
    names |= {probability_column(name) for name in TASKS[task].classes} | {"model_sha256"}
    return names | {c.name for c in catalogue_columns(TASKS[task]) if c.name.startswith("attention_")}


def predict_shard(
    results: str, field: str, task: str, store: str, shard: int, model: str, model_sha256: str, batch_size: int,
    inputs: dict,
) -> int:  # fmt: skip
    """Predict one shard and write its part; runs on a Dask worker. Gives the number of sources predicted."""
    layout = Layout(results)
    rows = read_shard(layout.store(field, store), shard)
    present = np.flatnonzero(rows.source_id != "")
    table = {row: _image_columns(rows, row) for row in present}
    valid = np.flatnonzero(rows.valid)
    for start in range(0, len(valid), batch_size):
        chosen = valid[start : start + batch_size]
        for row, values in zip(chosen, _predict_batch(rows, chosen, model, model_sha256), strict=True):
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


def _predict_batch(rows: ShardImages, chosen: np.ndarray, model: str, model_sha256: str) -> list[dict]:
    """Columns of some images, which the network sees together (each for itself)."""
    import torch

    from galgaze.measures.predictions import entropy, margin
    from galgaze.models.runtime import best_device, to_network_input

    network, card = load_on_worker(model, model_sha256)
    image = torch.from_numpy(rows.image[chosen]).to(best_device())  # (B, C, H, W)
    with torch.inference_mode():
        logits, maps = network.forward_with_attention(
            to_network_input(image).contiguous(memory_format=torch.channels_last)
        )
    logits = logits.double().cpu()
    probability = torch.softmax(logits, dim=1).numpy()  # (B, K)
    attention = [
        _attention(a.cpu().numpy(), reduction, rows, chosen)
        for a, reduction in zip(maps, network.attention_reductions, strict=True)
    ]
    calibration = card.calibration
    confidence = [None] * len(chosen)
    if calibration is not None:
        confidence = torch.softmax(logits / calibration.temperature, dim=1).amax(dim=1).tolist()
    class_entropy, class_margin = entropy(probability), margin(probability)
    return [
        {
            "class_label": card.classes[probability[i].argmax()],
            "class_probability": float(probability[i].max()),
            "confidence": confidence[i],
            "calibration": calibration.method if calibration else "uncalibrated",
            "class_entropy": float(class_entropy[i]),
            "class_margin": float(class_margin[i]),
        }
        | {probability_column(name): float(p) for name, p in zip(card.classes, probability[i], strict=True)}
        | {
            attention_column(name, gate + 1): _number(values[name][i])
            for gate, values in enumerate(attention)
            for name, *_ in ATTENTION_STATISTICS
        }
        for i in range(len(chosen))
    ]


def _attention(maps: np.ndarray, reduction: int, rows: ShardImages, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of one gate's maps (B, h, w), of which a pixel is ``reduction`` pixels of the image."""
    from galgaze.measures.attention import attention_statistics

    jacobian = rows.jacobian_arcsec[chosen].astype(float) * reduction
    centre = (rows.centre_px[chosen].astype(float) + 0.5) / reduction - 0.5  # the same point on the coarser grid
    statistics = attention_statistics(maps.astype(float), jacobian, centre)
    return {name: np.asarray(getattr(statistics, name)) for name, *_ in ATTENTION_STATISTICS}


def _number(value) -> float | None:
    """NaN becomes null."""
    return float(value) if np.isfinite(value) else None
