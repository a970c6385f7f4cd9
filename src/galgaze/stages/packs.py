"""A shard's cutouts as served, in one Parquet file with a manifest row a source."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from galgaze.files import atomic_path, sha256_json

MANIFEST = pa.schema(
    [
        ("source_id", pa.string()),
        ("status", pa.string()),
        ("status_reason", pa.string()),
        ("served_by", pa.string()),
        ("sha256", pa.string()),
        ("bytes", pa.int64()),
        ("url", pa.string()),
        ("fetched_utc", pa.string()),
        ("content", pa.large_binary()),
    ]
)
STALE_S = 86_400.0
ROW_GROUP = 16  # sources: what reading one needs in memory


def write_pack(target: Path, rows: Iterable[dict], note: Callable[[dict], None]) -> None:
    """Write rows as they come, atomically; each is told to `note`. A full disk says of which file."""
    _remove_left_by_kills(target)
    try:
        with atomic_path(target) as temporary, pq.ParquetWriter(temporary, MANIFEST, compression="zstd") as writer:
            group = []
            for row in rows:
                note(row)
                group.append(row)
                if len(group) == ROW_GROUP:
                    writer.write_table(pa.Table.from_pylist(group, MANIFEST))
                    group = []
            writer.write_table(pa.Table.from_pylist(group, MANIFEST))
    except OSError as error:
        error.filename = error.filename or str(target)
        raise


def _remove_left_by_kills(target: Path) -> None:
    """Half packs that no job can still be writing: a second run may be at work on the same shard."""
    for half in target.parent.glob(f".{target.name}.*.partial"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - half.stat().st_mtime > STALE_S:
                half.unlink()


def content_identity(path) -> str:
    """Hash of what a pack holds, without times and addresses: the same images give the same hash."""
    manifest = read_manifest(path)
    columns = ["source_id", "status", "served_by", "sha256"]
    return sha256_json(manifest[columns].astype(object).where(manifest[columns].notna(), None).values.tolist())


def read_manifest(path) -> pd.DataFrame:
    """The manifest of a shard, without the images."""
    return pq.read_table(path, columns=[name for name in MANIFEST.names if name != "content"]).to_pandas()


@dataclass(frozen=True)
class Fetched:
    """One row of a pack."""

    source_id: str
    status: str
    status_reason: str | None
    served_by: str | None
    sha256: str | None
    content: bytes | None


def read_contents(path) -> Iterator[Fetched]:
    """The rows of a pack with their images, a few in memory at a time."""
    columns = list(Fetched.__dataclass_fields__)
    with pq.ParquetFile(path) as pack:
        for group in range(pack.num_row_groups):
            for row in pack.read_row_group(group, columns=columns).to_pylist():
                yield Fetched(**row)
