"""Stage 6: join what the stages found, account for every source, and write the catalogue."""

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.spatial import cKDTree

from galgaze import __version__
from galgaze.catalogue.columns import catalogue_columns
from galgaze.catalogue.writer import healpix_29, to_arrow, write_catalogue
from galgaze.errors import ConfigError
from galgaze.fields.sky import chord, unit_vectors
from galgaze.files import read_marker, sha256_json
from galgaze.models.model_file import TRAINING_ROLES, load_extras, read_card
from galgaze.models.splits import GROUP_RADIUS_ARCSEC
from galgaze.stages import measure, predict
from galgaze.stages.context import Run, read_sources
from galgaze.stages.packs import read_manifest
from galgaze.stages.plan import read_record
from galgaze.stages.shards import read_part
from galgaze.tasks import TASKS

GIVEN = ["source_id", "ra_deg", "dec_deg", "redshift", "las_arcsec", "petrosian_radius_arcsec", "label"]


def write(run: Run, field: str, task: str) -> str:
    """Write the catalogue of a field and task; gives a line that says what was done."""
    plan = read_sources(run.layout, field)
    requested = plan[plan["requested"]]
    frame = requested[GIVEN].reset_index(drop=True)
    frame = _join(frame, _parts(run, field, task, predict.STAGE, predict.part_schema(task)), field)
    _check_models(run, field, task, frame)
    if run.task(task).bars:
        bars = _parts(run, field, task, measure.STAGE, measure.PART_SCHEMA)
        frame = frame.merge(bars, on="source_id", how="left", validate="one_to_one")
        # a bad measurement keeps its flag and reason, not its numbers
        bad = frame["bar_flag"] == 2
        frame.loc[bad, ["bar_length_px", "bar_length_arcsec", "bar_position_angle_deg"]] = np.nan
    frame["_healpix_29"] = healpix_29(frame["ra_deg"], frame["dec_deg"])
    frame["survey"] = _served_by(run, field, run.task(task).survey, frame["source_id"])
    frame["pipeline_version"] = __version__
    frame["training_role"] = _training_role(run, task, frame)
    frame = frame.sort_values(["_healpix_29", "source_id"], ignore_index=True)
    if len(frame) != len(requested):
        raise RuntimeError(f"{field} {task}: {len(requested)} sources in, {len(frame)} rows out")
    table = to_arrow(frame, catalogue_columns(TASKS[task]))
    write_catalogue(run.layout.catalogue(field, task), table, _provenance(run, field, task, frame))
    counts = frame["status"].value_counts()
    return ", ".join([f"{field} {task}: {len(frame)} rows", *(f"{n} {name}" for name, n in counts.items())])


def _parts(run: Run, field: str, task: str, stage: str, schema: pa.Schema) -> pd.DataFrame:
    marker = run.layout.stage_marker(field, task, stage)
    value = read_marker(marker)
    if value is None:
        raise ConfigError(f"The stage {stage} of {field} {task} has not been run yet: `galgaze {stage}`.")
    if not value["outputs"]:  # a field without sources
        return schema.empty_table().to_pandas()
    return pd.concat([read_part(marker.parent / name) for name in value["outputs"]], ignore_index=True)


def _served_by(run: Run, field: str, survey: str, source_id: pd.Series) -> np.ndarray:
    """Which survey each source's image came from: the task's own, or the one that stood in for it."""
    if run.fallback(survey) is None:
        return np.full(len(source_id), survey, dtype=object)
    packs = [run.layout.fetched(field, survey, shard) for shard in range(read_record(run, field)["shards"])]
    served = pd.concat([read_manifest(path) for path in packs]).set_index("source_id")["served_by"]
    return served.reindex(source_id).fillna(survey).to_numpy(object)


def _join(frame: pd.DataFrame, predicted: pd.DataFrame, field: str) -> pd.DataFrame:
    missing = set(frame["source_id"]) - set(predicted["source_id"])
    if missing:
        raise ConfigError(
            f"{len(missing)} sources of {field} are not among the predictions ({', '.join(sorted(missing)[:3])}): the "
            "field has changed since. Run snakemake, or the stages fetch, shard and predict again."
        )
    return frame.merge(predicted, on="source_id", how="left", validate="one_to_one")


def _check_models(run: Run, field: str, task: str, frame: pd.DataFrame) -> None:
    """Refuse model files that have changed since: cards and training roles would be another model's."""
    paths = run.models(task)
    for path in paths:
        read_card(path)  # says what to do where it is missing
    if set(frame["model_sha256"].dropna()) - {predict.models_sha256(paths)}:
        raise ConfigError(
            f"{', '.join(map(str, paths))}: this is not the model that {field} {task} was predicted with. Run "
            "snakemake, or `galgaze predict`, again."
        )


def _training_role(run: Run, task: str, frame: pd.DataFrame) -> np.ndarray:
    """What the model knew of each source, by position: a label seen under another id is still seen."""
    role = np.full(len(frame), None, dtype=object)
    position_deg, known = _known_sources(run, task)
    if len(known) and len(frame):
        asked = unit_vectors(frame["ra_deg"], frame["dec_deg"])
        for name in reversed(TRAINING_ROLES):  # training last: it outweighs
            tree = cKDTree(unit_vectors(*position_deg[known == name].T))
            distance, _ = tree.query(asked, distance_upper_bound=chord(GROUP_RADIUS_ARCSEC))
            role[np.isfinite(distance)] = name
    return role


def _known_sources(run: Run, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Positions (N, 2) in degrees and roles (N,) of the sources that a task's models were trained on."""
    position_deg, role = [np.empty((0, 2))], [np.empty(0, dtype=object)]
    path = run.layout.training_sources(task)
    if run.task(task).model.train is not None and path.exists():
        table = pd.read_parquet(path).dropna(subset=["ra_deg", "dec_deg"])
        position_deg.append(table[["ra_deg", "dec_deg"]].to_numpy())
        role.append(table["role"].to_numpy(object))
    # a model file knows what its initial weights saw, too; simulated sources stand in the table alone
    for extras in map(load_extras, run.models(task)):
        if "training_position_deg" in extras:
            position_deg.append(extras["training_position_deg"].numpy())
            role.append(np.array(TRAINING_ROLES, dtype=object)[extras["training_role"].numpy()])
    return np.concatenate(position_deg), np.concatenate(role)


def _provenance(run: Run, field: str, task: str, frame: pd.DataFrame) -> dict:
    settings = run.task(task)
    return {
        "pipeline_version": __version__,
        "field": field,
        "task": task,
        "survey": run.survey_identity(settings.survey),
        "preparation": settings.preparation.model_dump(),
        "bars": settings.bars.model_dump() if settings.bars else None,
        "model_cards": [read_card(path).model_dump() for path in run.models(task)],
        "sources_sha256": sha256_json(sorted(frame["source_id"])),
        "rows": len(frame),
        "rows_by_status": {name: int(n) for name, n in frame["status"].value_counts().items()},
    }
