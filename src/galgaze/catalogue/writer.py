"""The catalogue as a Parquet file that explains itself."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from galgaze.catalogue.columns import Column, arrow_schema
from galgaze.files import atomic_path

PROVENANCE_KEY = b"galgaze"
ROW_GROUP = 100_000


def to_arrow(frame: pd.DataFrame, columns: tuple[Column, ...]) -> pa.Table:
    """Table with exactly these columns, dtypes and metadata; NaN and None become null.

    Raises
    ------
    ValueError
        If a column that is never null has nulls, or the frame has other columns: a bug of ours.
    """
    unknown = set(frame.columns) - {column.name for column in columns}
    if unknown:
        raise ValueError(f"columns that the column table does not know: {sorted(unknown)}")
    schema = arrow_schema(columns)
    arrays = []
    for column in columns:
        values = frame[column.name] if column.name in frame else pd.Series([None] * len(frame), dtype=object)
        array = pa.array(values.astype(object).where(values.notna(), None), type=column.dtype)
        if array.null_count and not column.null:
            raise ValueError(f"{column.name} has {array.null_count} nulls, but is never null")
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=schema)


def write_catalogue(path: str | Path, table: pa.Table, provenance: dict) -> None:
    """Write atomically: zstd, sorted as given, provenance as JSON under the key ``galgaze``."""
    metadata = {PROVENANCE_KEY: json.dumps(provenance).encode()}
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd", row_group_size=ROW_GROUP)


def read_provenance(path: str | Path) -> dict:
    """The provenance that `write_catalogue` put into a file."""
    return json.loads(pq.read_schema(path).metadata[PROVENANCE_KEY])


def healpix_29(ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
    """HEALPix index, order 29, nested: (N,) int64. Sorting by it keeps neighbours on the sky together."""
    import astropy.units as u
    from astropy.coordinates import Latitude, Longitude
    from cdshealpix import lonlat_to_healpix

    return lonlat_to_healpix(
        Longitude(np.asarray(ra_deg, float), u.deg), Latitude(np.asarray(dec_deg, float), u.deg), 29
    ).astype(np.int64)
