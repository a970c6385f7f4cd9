"""Stage 1: the cutouts of one shard, as served, in one file with a manifest row a source.

What is downloaded lands in the cache first, which Snakemake does not own: a job that is killed, or gives up,
costs no second download.
"""

import hashlib
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from galgaze import status
from galgaze.errors import BadImage, NoCoverage, TransientError
from galgaze.files import atomic_path, marker_holds, read_marker, restore_marker, sha256_json, write_marker
from galgaze.stages.context import Run, read_sources, sources_identity, sources_of
from galgaze.surveys.base import Source, Survey
from galgaze.surveys.cache import DownloadCache

MANIFEST = pa.schema(
    [
        ("source_id", pa.string()),
        ("status", pa.string()),
        ("status_reason", pa.string()),
        ("sha256", pa.string()),
        ("bytes", pa.int64()),
        ("url", pa.string()),
        ("fetched_utc", pa.string()),
        ("content", pa.large_binary()),
    ]
)
ROW_GROUP = 16  # sources: what reading one needs in memory


def fetch(run: Run, field: str, survey_name: str, shard: int) -> str:
    """Fetch one shard; gives a line that says what was done.

    Raises
    ------
    TransientError
        If so many sources failed in a row that the service must be in trouble; what was got is kept.
    """
    survey = run.survey(survey_name)
    frame = read_sources(run.layout, field, shard)
    marker = run.layout.fetch_marker(field, survey_name, shard)
    inputs = {"sources": sources_identity(frame), "survey": survey.identity()}
    target = run.layout.fetched(field, survey_name, shard)
    if _already_fetched(marker, inputs, target):
        return f"{field} {survey_name} shard {shard}: already fetched"
    cache = DownloadCache(run.config.cache) if survey.remote else None
    counts: dict[str, int] = {}
    failures = 0  # in a row
    with (
        atomic_path(target) as temporary,
        pq.ParquetWriter(temporary, MANIFEST, compression="zstd") as writer,
    ):
        rows = []
        for source in sources_of(frame[frame["requested"]]):
            row = _fetch_one(survey, source, cache)
            failures = failures + 1 if row["status"] == status.FETCH_FAILED else 0
            _give_up_after(failures, survey, row)
            counts[row["status"]] = counts.get(row["status"], 0) + 1
            rows.append(row)
            if len(rows) == ROW_GROUP:
                writer.write_table(pa.Table.from_pylist(rows, MANIFEST))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, MANIFEST))
    survey.close()
    write_marker(marker, {**inputs, "content": content_identity(target)}, [target])
    return f"{field} {survey_name} shard {shard}: " + ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))


def _already_fetched(marker: Path, inputs: dict, target: Path) -> bool:
    """Whether the pack was made from these inputs, is whole, and has no source that another try may help."""
    restore_marker(marker)
    kept = read_marker(marker)
    if kept is None or not marker_holds(marker, {**inputs, "content": kept["inputs"].get("content")}):
        return False
    return not (read_manifest(target)["status"] == status.FETCH_FAILED).any()


def _fetch_one(survey: Survey, source: Source, cache: DownloadCache | None) -> dict:
    """One manifest row; whatever goes wrong with one source becomes its status."""
    row = dict.fromkeys(MANIFEST.names) | {"source_id": source.source_id, "status": status.OK}
    try:
        body = cache.get(survey.identity(), source) if cache else None
        if body is None:
            body, row["url"] = survey.download(source)
            row["fetched_utc"] = datetime.now(UTC).isoformat(timespec="seconds") if survey.remote else None
            survey.decode(body, source)  # accepted only after the whole chain of checks
            if cache:
                cache.put(survey.identity(), source, body)
        row |= {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body), "content": body}
    except NoCoverage as error:
        row |= {"status": status.NO_COVERAGE, "status_reason": error.reason}
    except BadImage as error:
        row |= {"status": status.BAD_IMAGE, "status_reason": error.reason}
    except TransientError as error:
        row |= {"status": status.FETCH_FAILED, "status_reason": str(error)}
    return row


def _give_up_after(failures: int, survey: Survey, row: dict) -> None:
    if survey.remote and failures >= survey.settings.http.give_up_after:
        raise TransientError(
            f"{failures} sources in a row could not be fetched; the last one said: {row['status_reason']} What was "
            "fetched before is kept: run the same command again later, and it goes on from here."
        )


def content_identity(path) -> str:
    """Hash of what a pack holds, without times and addresses: the same images give the same hash."""
    manifest = read_manifest(path)
    columns = ["source_id", "status", "sha256"]
    return sha256_json(manifest[columns].astype(object).where(manifest[columns].notna(), None).values.tolist())


def read_manifest(path) -> pd.DataFrame:
    """The manifest of a shard, without the images."""
    return pq.read_table(path, columns=[name for name in MANIFEST.names if name != "content"]).to_pandas()


def read_contents(path):
    """Yield (source_id, status, reason, sha256, bytes of the image or None), a few in memory at a time."""
    columns = ["source_id", "status", "status_reason", "sha256", "content"]
    with pq.ParquetFile(path) as pack:
        for group in range(pack.num_row_groups):
            for row in pack.read_row_group(group, columns=columns).to_pylist():
                yield tuple(row[name] for name in columns)


def say(line: str) -> None:
    """Progress, for terminal and log."""
    print(line, file=sys.stderr, flush=True)
