"""Stage 7: one page a field, from its catalogues and a few images that the network looks at once more."""

import collections
from dataclasses import asdict

import numpy as np
import pandas as pd
import zarr

from galgaze import __version__
from galgaze.catalogue.writer import read_provenance
from galgaze.config import FieldSettings
from galgaze.errors import ConfigError
from galgaze.files import write_bytes
from galgaze.images.store import ShardImages, read_shard
from galgaze.stages.context import Images, Run, read_sources
from galgaze.stages.fetch_progress import read_ledger
from galgaze.stages.packs import read_manifest
from galgaze.stages.plan import read_record
from galgaze.stages.shards import check_store_shard
from galgaze.tasks import TASKS

# Arrays of one row of a store; of the images themselves only the rows wanted are read.
ROW_ARRAYS = ("valid", "source_id", "centre_px", "jacobian_arcsec")
UNSHOWN_COLUMNS = {"image_sha256", "pipeline_version", "_healpix_29"}
SHEET_IMAGES = 6  # a class, of a simulated field


def report(run: Run, field: str) -> str:
    """Write the page of a field; gives a line that says what was done."""
    from galgaze.report.page import FieldFacts, render_page

    run.check_field(field)
    settings, record = run.config.fields[field], read_record(run, field)
    if not settings.tasks:
        raise ConfigError(f"fields.{field}.tasks is empty: there is nothing to report.")
    if record is None:
        raise ConfigError(f"The field {field} has no plan yet: `galgaze plan`.")
    facts = FieldFacts(field, _origin(settings), record["sources"], record["shards"], __version__)
    results = [_results(run, field, task) for task in settings.tasks]
    page = render_page(facts, results).encode()
    write_bytes(run.layout.report(field), page)
    return f"{field}: a page on {', '.join(settings.tasks)}, {len(page) / 1e6:.1f} MB"


def _origin(settings: FieldSettings) -> str:
    if settings.simulated:
        return f"simulated, survey {settings.simulated.survey}"
    if settings.table:
        return f"from the table {settings.table.path}"
    return f"from {settings.query.service}, catalogue {settings.query.catalogue}"


def _results(run: Run, field: str, task: str):
    """Everything that the page says about one task."""
    from galgaze.report.page import TaskResults, examples_wanted

    path, layout = run.layout.catalogue(field, task), run.layout
    if not path.exists():
        raise ConfigError(f"The catalogue of {field} {task} has not been written yet: `galgaze write`.")
    catalogue = _read_catalogue(path)
    model, loaded = _load_model(run, field, task, catalogue)
    wanted, with_bars = examples_wanted(catalogue, TASKS[task])
    truth = pd.read_parquet(layout.truth(field)) if layout.truth(field).exists() else None
    curve = layout.training_curve(task)
    images = run.images(field, task)
    return TaskResults(
        task=TASKS[task],
        survey=run.task(task).survey,
        catalogue=catalogue,
        provenance=read_provenance(path),
        model=model,
        truth=truth,
        curve=pd.read_csv(curve) if model.trained_here and curve.exists() else None,
        examples=_examples(run, images, loaded, wanted, with_bars),
        sheet=_sheet(run, images, catalogue, truth),
        fetching=_fetching(run, field, images.survey),
    )


def _fetching(run: Run, field: str, survey_name: str):
    """What fetching took, and what it should have; None for local images."""
    from galgaze.report.page import FetchFacts

    survey = run.survey(survey_name)
    if not survey.remote:
        return None
    plan = read_sources(run.layout, field)
    asked = plan[plan["requested"]]
    first, *others = survey.ways(asked["ra_deg"].to_numpy(), asked["dec_deg"].to_numpy())
    shards = range(read_record(run, field)["shards"])
    jobs = [job for shard in shards for job in read_ledger(run.layout.fetch_ledger(field, survey_name, shard))]
    packs = [run.layout.fetched(field, survey_name, shard) for shard in shards]
    served = collections.Counter(name for path in packs for name in read_manifest(path)["served_by"].dropna())
    return FetchFacts(
        way=first.way,
        expected=asdict(first),
        others={cost.way: asdict(cost) for cost in others},
        jobs=len(jobs),
        requests=sum(job["requests"] for job in jobs),
        megabytes=sum(job["bytes"] for job in jobs) / 1e6,
        seconds=sum(job["seconds"] for job in jobs),
        in_vain=dict(sum((collections.Counter(job["in_vain"]) for job in jobs), collections.Counter())),
        served_by=dict(served),
    )


def _read_catalogue(path) -> pd.DataFrame:
    import pyarrow.parquet as pq

    names = [name for name in pq.read_schema(path).names if name not in UNSHOWN_COLUMNS]
    return pd.read_parquet(path, columns=names)


def _load_model(run: Run, field: str, task: str, catalogue: pd.DataFrame):
    """What the page says about the model, and its network.

    Raises
    ------
    ConfigError
        If it is not the model that the catalogue was made with: its attention would be another's.
    """
    from galgaze.models.model_file import knows_its_sources
    from galgaze.report.page import ModelFacts
    from galgaze.stages.predict import load_on_worker, models_sha256, resolved

    paths = run.models(task)
    named = ", ".join(map(str, paths))
    there = all(path.exists() for path in paths)
    sha256 = models_sha256(paths) if there else ""
    used = set(catalogue["model_sha256"].dropna())
    if used - {sha256}:
        raise ConfigError(
            f"{named}: {'this is not the model' if there else 'missing; it is the model'} that the catalogue of "
            f"{field} {task} was made with (sha256 {min(used)}). Run snakemake, or predict, measure and write again."
        )
    model = load_on_worker(resolved(paths), sha256)
    parameters = sum(parameter.numel() for parameter in model.network.parameters())
    trained_here = run.task(task).model.train is not None
    known = trained_here or all(knows_its_sources(member.card) for member in model.members)
    card = model.card.model_dump()
    if not all(member.card.calibration for member in model.members):
        card["calibration"] = None  # then nothing is calibrated, see the stage predict
    return ModelFacts(named, sha256, card, parameters, trained_here, known), model


# -------------------------------------------------------------------------------------- examples


def _examples(run: Run, images: Images, model, wanted: list[str], with_bars: list[str]) -> dict:
    """`Example`s by source id, each with its attention maps and, for bars, with its saliency."""
    from galgaze.report.figures import Example

    rows = _read_rows(run, images, wanted)
    examples = {}
    for source_id, row in rows.items():
        examples[source_id] = Example(
            source_id=source_id,
            image=row["image"],
            attention=_attention(model.network, row["image"]),
            reductions=tuple(model.network.attention_reductions),
            padding_px=model.network.padding_px(row["image"].shape[-1]),
            centre_px=row["centre_px"].astype(float),
            jacobian_arcsec=row["jacobian_arcsec"].astype(float),
            saliency=_saliency(run, images.task, model, row["image"], source_id) if source_id in with_bars else None,
        )
    return examples


def _sheet(run: Run, images: Images, catalogue: pd.DataFrame, truth: pd.DataFrame | None) -> list:
    """Rows of images by true class; none unless the survey that drew the field's truth served its images."""
    from galgaze.report.contact_sheet import SheetRow, choose_sources, row_name

    origin = run.config.fields[images.field].simulated
    if truth is None or origin is None or origin.survey != images.survey:
        return []
    predicted = set(catalogue.loc[catalogue["class_label"].notna(), "source_id"])  # these have an image
    chosen = choose_sources(truth[truth["source_id"].isin(predicted)], TASKS[images.task], SHEET_IMAGES)
    found = _read_rows(run, images, [source_id for *_, ids in chosen for source_id in ids])
    return [
        SheetRow(row_name(label, kind), ([found[source_id]["image"] for source_id in ids],))
        for label, kind, ids in chosen
    ]


def _attention(network, image: np.ndarray) -> tuple[np.ndarray, ...]:
    """A map (h, w) a gate of one stored image (C, H, W), computed as in the stage predict; its maximum is 1."""
    import torch

    from galgaze.models.attention import from_zero
    from galgaze.models.runtime import best_device, to_network_input

    batch = to_network_input(torch.from_numpy(image)[None].to(best_device()))
    with torch.inference_mode():
        _, maps = network.forward_with_attention(batch.contiguous(memory_format=torch.channels_last))
    seen = [from_zero(gate, network.normalisation)[0].float().cpu().numpy() for gate in maps]
    return tuple(a / max(a.max(), 1e-12) for a in seen)


def _saliency(run: Run, task: str, model, image: np.ndarray, source_id: str) -> np.ndarray | None:
    """The map that the stage measure saw: its noise is the source's own. None where no bars are measured."""
    from galgaze.stages.measure import bar_saliency, bar_score

    settings = run.task(task).bars
    return None if settings is None else bar_saliency(bar_score(model), image, source_id, settings)


def _read_rows(run: Run, images: Images, wanted: list[str]) -> dict[str, dict]:
    """Rows of the store by source id, in the order wanted."""
    plan = read_sources(run.layout, images.field).set_index("source_id")[["shard", "position"]]
    place = plan.loc[wanted].astype(int)
    found = {}
    for shard, part in place.groupby("shard"):
        found |= _read_shard_rows(run, images, int(shard), part["position"])
    return {source_id: found[source_id] for source_id in wanted}


def _read_shard_rows(run: Run, images: Images, shard: int, positions: pd.Series) -> dict[str, dict]:
    path = run.layout.store(images.field, images.store)
    if not path.exists():
        raise ConfigError(f"{path}: the images of {images.field} are gone; run snakemake, or `galgaze shard`, again.")
    shard_rows = read_shard(path, shard, ROW_ARRAYS)
    pixels = zarr.open_group(path, mode="r")["image"]
    found = {}
    for source_id, position in positions.items():
        image = pixels[shard * len(shard_rows.valid) + position]
        if not _whole(shard_rows, position, source_id, image):
            check_store_shard(run.layout, images.field, images.store, shard)  # says what to do, if it is damaged
            raise RuntimeError(f"{path}: row {position} of shard {shard} does not hold {source_id!r}")
        found[source_id] = {"image": image} | {name: getattr(shard_rows, name)[position] for name in ROW_ARRAYS}
    return found


def _whole(rows: ShardImages, position: int, source_id: str, image: np.ndarray) -> bool:
    """Zarr reads what is missing as zeros without a word; an image that was predicted is never constant."""
    return bool(rows.valid[position]) and rows.source_id[position] == source_id and image.min() < image.max()
