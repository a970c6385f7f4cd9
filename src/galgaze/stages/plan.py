"""Stage 0: read a field once, check every row, and assign each source to a shard for good.

The plan is a folder of Parquet files, one a shard; jobs of a shard depend on their own file alone. Sources that
are new in the table form new shards; no boundary ever moves. Sources that left the table stay in their place,
marked as not requested.
"""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from galgaze.config import SimulatedSource
from galgaze.errors import ConfigError
from galgaze.fields import FIELD_COLUMNS, read_query, read_table, resolve_query
from galgaze.files import sha256_file, sha256_json, write_if_changed, write_json
from galgaze.stages.context import Run, read_sources

PLAN_VERSION = 1
TEXT_COLUMNS = ("source_id", "label")
# Spelled out, so that a shard without any label has the same columns as the others.
PLAN = pa.schema(
    [
        *((name, pa.string() if name in TEXT_COLUMNS else pa.float64()) for name in FIELD_COLUMNS),
        ("requested", pa.bool_()),
        ("shard", pa.int64()),
        ("position", pa.int64()),
    ]
)


def make_plan(run: Run, field: str) -> dict:
    """Make or update a field's plan; gives its record (``shards``, ``sources``, ``shard_size``, ``fingerprint``).

    Quick where nothing has changed: the table is not read again.

    Raises
    ------
    ConfigError
        If the field's table, or its change since the last plan, cannot be used.
    """
    run.check_field(field)
    record = read_record(run, field)
    fingerprint = _fingerprint(run, field)
    if record and record["fingerprint"] == fingerprint:
        return record
    shard_size = run.shard_size(field)
    if record and record["shard_size"] != shard_size:
        raise ConfigError(
            f"fields.{field}: its plan was made with shard_size {record['shard_size']}, now {shard_size} is "
            f"configured. Shards never move: set it back, or remove {run.layout.results / field} and start over."
        )
    rows = _read_rows(run, field)
    if record:
        rows = _merge(read_sources(run.layout, field), rows, field)
    else:
        rows = rows.assign(requested=True)
    rows = _assign(rows, shard_size)
    shards = _write(run, field, rows)
    record = {
        "fingerprint": _fingerprint(run, field),  # again: a query has its answer now
        "shard_size": shard_size,
        "shards": shards,
        "sources": int(rows["requested"].sum()),
    }
    write_json(run.layout.plan_record(field), record)
    return record


def read_record(run: Run, field: str) -> dict | None:
    """The record of a plan that was made before, or None."""
    path = run.layout.plan_record(field)
    return json.loads(path.read_text()) if path.exists() else None


def _fingerprint(run: Run, field: str) -> dict:
    """What the plan depends on, cheap to tell: files by size and time."""
    settings = run.config.fields[field]
    fingerprint = {
        "version": PLAN_VERSION,
        "settings": sha256_json([settings.model_dump(exclude={"tasks"}), run.shard_size(field)]),
        "classes": _classes(run, field),
    }
    if settings.table:
        path = Path(settings.table.path)
        if path.exists():
            fingerprint["file"] = [path.stat().st_size, path.stat().st_mtime_ns]
    if settings.query and run.layout.query(field).exists():
        fingerprint["answer"] = sha256_file(run.layout.query(field))
    if settings.simulated:
        fingerprint["survey"] = run.survey(settings.simulated.survey).identity()
    return fingerprint


def _classes(run: Run, field: str) -> list[str] | None:
    tasks = run.label_tasks(field)
    return [name for task in tasks for name in task.classes] if tasks else None


def _read_rows(run: Run, field: str) -> pd.DataFrame:
    settings = run.config.fields[field]
    classes = _classes(run, field)
    if settings.simulated:
        return _simulate(run, field, settings.simulated)
    if settings.query:
        saved = run.layout.query(field)
        resolve_query(settings.query, saved, run.config.contact)
        return read_query(saved, settings.query, settings.labels, classes)
    return read_table(settings.table, settings.labels, classes)


def _simulate(run: Run, field: str, settings: SimulatedSource) -> pd.DataFrame:
    """Ids and positions of a simulated field, labels from the truth; the truth goes into a file of its own."""
    survey = run.survey(settings.survey)
    ids = [f"{settings.prefix}-{index:07d}" for index in range(settings.count)]
    columns = ["source_id", *survey.truth("any")]  # also where there is no source
    truth = pd.DataFrame([{"source_id": name, **survey.truth(name)} for name in ids], columns=columns)
    rows = pd.DataFrame(dict.fromkeys(FIELD_COLUMNS, np.nan), index=range(len(ids)))
    rows["source_id"] = ids
    positions = np.reshape([_position(name) for name in ids], (-1, 2))
    rows["ra_deg"], rows["dec_deg"] = positions.T
    rows["label"] = truth["class_label"].to_numpy()
    for name in ("redshift", "las_arcsec"):  # what a catalogue would give beside the label
        if name in truth:
            rows[name] = truth[name].astype(float).to_numpy()
    buffer = io.BytesIO()
    truth.to_parquet(buffer, index=False)
    write_if_changed(run.layout.truth(field), buffer.getvalue())
    return rows


def _position(source_id: str) -> tuple[float, float]:
    """A place inside both surveys' footprints: RA 120 to 240, Dec 0 to 30 degrees, even on the sphere."""
    digest = hashlib.sha256(source_id.encode()).digest()
    first, second = (int.from_bytes(digest[i : i + 6], "big") / 2**48 for i in (0, 6))
    dec = np.degrees(np.arcsin(second * np.sin(np.radians(30))))
    return round(120 + 120 * first, 7), round(float(dec), 7)


def _merge(old: pd.DataFrame, new: pd.DataFrame, field: str) -> pd.DataFrame:
    """Old sources in their old order, with the new values where they still stand in the table; then the new ones."""
    old = old.set_index("source_id", drop=False)
    new = new.set_index("source_id", drop=False)
    common = old.index.intersection(new.index, sort=False)
    moved = (old.loc[common, ["ra_deg", "dec_deg"]] != new.loc[common, ["ra_deg", "dec_deg"]]).any(axis=1)
    if moved.any():
        names = ", ".join(common[moved.to_numpy()][:5])
        raise ConfigError(
            f"fields.{field}: {int(moved.sum())} sources have another position than when the field was planned ({names}"
            f"{', ...' if moved.sum() > 5 else ''}). Give them new ids, or give the field another name."
        )
    values = [name for name in FIELD_COLUMNS if name != "source_id"]
    old.loc[common, values] = new.loc[common, values]  # labels and sizes may have been corrected
    old["requested"] = old.index.isin(new.index)
    added = new.loc[~new.index.isin(old.index), list(FIELD_COLUMNS)].assign(requested=True)
    return pd.concat([old, added], ignore_index=True)


def _assign(rows: pd.DataFrame, shard_size: int) -> pd.DataFrame:
    """Give a shard and a position in it to rows that have none yet; they start a new shard."""
    rows = rows.reset_index(drop=True)
    if "shard" not in rows:
        rows["shard"], rows["position"] = np.nan, np.nan
    new = rows["shard"].isna().to_numpy()
    first = 0 if new.all() else int(rows["shard"].max()) + 1
    order = np.arange(new.sum())
    rows.loc[new, "shard"] = first + order // shard_size
    rows.loc[new, "position"] = order % shard_size
    return rows.astype({"shard": "int64", "position": "int64", "requested": bool})


def _write(run: Run, field: str, rows: pd.DataFrame) -> int:
    shards = rows.groupby("shard", sort=True)
    # A field without sources has no shards, but a file that says so, with all columns.
    for shard, part in shards if len(shards) else [(0, rows)]:
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pandas(part, PLAN, preserve_index=False), buffer)
        write_if_changed(run.layout.plan_shard(field, int(shard)), buffer.getvalue())
    return len(shards)
