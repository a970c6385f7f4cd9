"""Stage 5: bars, from SmoothGrad saliency of the score of a bar, by Dask over the shards."""

import numpy as np
import pyarrow as pa

from galgaze.catalogue.columns import BARS
from galgaze.config import BarSettings
from galgaze.errors import ConfigError
from galgaze.files import marker_holds, read_marker, restore_marker, write_marker
from galgaze.images.store import read_shard
from galgaze.layout import Layout
from galgaze.stages import predict as prediction
from galgaze.stages.context import Run
from galgaze.stages.shards import check_store_shard, map_shards, part_holds, read_part, write_part
from galgaze.tasks import TASKS

MEASURE_VERSION = 2  # raise when the same saliency gives other numbers
STAGE = "measure"
PART_SCHEMA = pa.schema([("source_id", pa.string())] + [(column.name, column.dtype) for column in BARS[1:]])


def measure(run: Run, field: str, task: str, workers: int = 1, dask: str = "local") -> str:
    """Measure the bars of a field; gives a line that says what was done."""
    settings = run.task(task).bars
    if settings is None:
        raise ConfigError(f"tasks.{task} has no `bars`: nothing is to be measured.")
    predicted = read_marker(run.layout.stage_marker(field, task, prediction.STAGE))
    if predicted is None:
        raise ConfigError(f"The field {field} has not been predicted for {task} yet: `galgaze predict`.")
    images, layout, models = run.images(field, task), run.layout, prediction.resolved(run.models(task))
    model_sha256 = prediction.models_sha256(run.models(task))
    inputs, todo = {}, {}
    for name, predict_inputs in predicted["inputs"].items():
        shard = int(name)
        hashes = check_store_shard(layout, field, images.store, shard)
        _check_current(field, task, predict_inputs, model_sha256, hashes)
        inputs[name] = {"predict": predict_inputs, "bars": settings.model_dump(), "version": MEASURE_VERSION}
        if not part_holds(layout.part(field, task, STAGE, shard), inputs[name]):
            todo[shard] = (
                str(layout.results.resolve()), field, task, images.store, shard, models, model_sha256, settings,
                inputs[name],
            )  # fmt: skip
    marker = layout.stage_marker(field, task, STAGE)
    restore_marker(marker)
    if not todo and marker_holds(marker, inputs):
        return f"{field} {task}: bars already measured"
    measured = map_shards(measure_shard, todo, f"measure {field} {task}", workers, dask)
    write_marker(marker, inputs, [layout.part(field, task, STAGE, int(name)) for name in inputs])
    return f"{field} {task}: {measured} bars measured in {len(todo)} shards, {len(inputs) - len(todo)} kept"


def _check_current(field: str, task: str, predicted: dict, model_sha256: str, hashes: dict) -> None:
    """Refuse predictions of another model or of other images: their probabilities would stand beside other bars."""
    differs = {"another model": predicted["model"] != model_sha256, "other images": predicted["store"] != hashes}
    found = " and ".join(name for name, differ in differs.items() if differ)
    if found:
        raise ConfigError(
            f"The field {field} was predicted for {task} with {found} than stand there now: run snakemake, or "
            "`galgaze predict`, again."
        )


def measure_shard(
    results: str, field: str, task: str, store: str, shard: int, models: tuple[str, ...], model_sha256: str,
    settings: BarSettings, inputs: dict,
) -> int:  # fmt: skip
    """Measure one shard and write its part; runs on a Dask worker. Gives the number of bars measured."""
    layout = Layout(results)
    predicted = read_part(layout.part(field, task, prediction.STAGE, shard))
    likely = predicted[predicted["bar_probability"] >= settings.probability_threshold]
    rows = []
    if len(likely):
        images = read_shard(layout.store(field, store), shard)
        position = {name: row for row, name in enumerate(images.source_id)}
        score = bar_score(prediction.load_on_worker(models, model_sha256))
        for source_id in likely["source_id"]:
            row = position[source_id]
            saliency = bar_saliency(score, images.image[row], source_id, settings)
            rows.append({"source_id": source_id} | _bar_columns(saliency, images, row))
    write_part(layout.part(field, task, STAGE, shard), rows, PART_SCHEMA, inputs)
    return len(rows)


def bar_score(model):
    """The function (B, C, H, W) to (B,) whose gradient shows the bar.

    The log-odds of a bar, where the network answers that question; else the logit of the barred class.
    """
    network, card = model.network, model.card
    if card.questions:
        from galgaze.models.questions import bar_logit

        return lambda image: bar_logit(network.examine(image).answers)
    index = card.classes.index(TASKS[card.task].barred_class)
    return lambda image: network(image)[:, index]


def bar_saliency(score, image: np.ndarray, source_id: str, settings: BarSettings) -> np.ndarray:
    """SmoothGrad map (H, W) of one stored image (C, H, W) uint8; the noise is the source's own."""
    import torch

    from galgaze.measures.saliency import seed_of, smoothgrad
    from galgaze.models.runtime import best_device, to_network_input

    return smoothgrad(
        score,
        to_network_input(torch.from_numpy(image)).to(best_device()),
        settings.samples,
        settings.noise_fraction,
        seed_of(source_id, settings.seed),
    )


def _bar_columns(saliency: np.ndarray, images, row: int) -> dict:
    from galgaze.measures.bars import measure_bar

    bar = measure_bar(saliency, images.centre_px[row].astype(float), images.jacobian_arcsec[row].astype(float))
    numbers = {
        "bar_length_px": bar.length_px,
        "bar_length_arcsec": bar.length_arcsec,
        "bar_position_angle_deg": bar.position_angle_deg,
        "bar_elongation": bar.elongation,
    }
    return {name: float(value) if np.isfinite(value) else None for name, value in numbers.items()} | {
        "bar_flag": bar.flag,
        "bar_flag_reason": bar.flag_reason or None,
    }
