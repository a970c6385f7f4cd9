"""Tables from files: CSV, Parquet, FITS and VOTable, each read into a `RawTable` and then checked alike.

Positions stand in decimal degrees in the columns that the configuration names. A file that is damaged, cut
short or not what its ending says is refused with advice, whatever its reader raises. astropy is imported
only where a file needs it.
"""

import contextlib
import csv
import gzip
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
from pyarrow import parquet

from galgaze.config import TableSource
from galgaze.errors import ConfigError
from galgaze.fields.rows import RawTable, checked_rows, wanted_columns


def read_table(source: TableSource, labels: dict[str, str | None], classes: Sequence[str] | None) -> pd.DataFrame:
    """Read and check the sources of a file.

    Parameters
    ----------
    source : TableSource
        The file, and how it names its columns. Of a FITS file with several tables the first is read.
    labels : dict
        From values of the label column to class names; None: not a label.
    classes : sequence of str or None
        The class names that a label may have; None: any text.

    Returns
    -------
    pandas.DataFrame
        Columns `FIELD_COLUMNS`, rows in the table's order; numbers are float64, NaN where absent; a label is
        a class name or None.

    Raises
    ------
    ConfigError
        If the file cannot be read or any row cannot be used; the message lists the rows.
    """
    path = Path(source.path)
    raw = _read_file(path, wanted_columns(source.columns))
    return checked_rows(raw, source.columns, labels, classes, str(path))


def _read_file(path: Path, wanted: dict[str, str]) -> RawTable:
    reader = _reader(path)
    _require_file(path)
    with as_config_error(path):
        return reader(path, wanted)


def _reader(path: Path) -> Callable[[Path, dict[str, str]], RawTable]:
    for ending, reader in READERS.items():
        if path.name.lower().endswith(ending):
            return reader
    raise ConfigError(
        f"{path}: galgaze does not know this kind of file. It reads {', '.join(READERS)}; "
        "save the table as one of them."
    )


def _require_file(path: Path) -> None:
    """Missing, unreadable, empty, or a web page that a download left under the table's name."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: there is no such file (paths count from {Path.cwd()}). Correct the field's table.path."
        ) from error
    except OSError as error:
        raise ConfigError(f"{path}: the table cannot be read ({error.strerror}).") from error
    if not head:
        raise ConfigError(f"{path}: the file is empty.")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html")):
        raise ConfigError(f"{path}: this is a web page (HTML), not a table. Download the table again.")


@contextlib.contextmanager
def as_config_error(path: Path, advice: str = "save or download it again") -> Iterator[None]:
    """Whatever a reader raises over a damaged file, say which file and what to do."""
    try:
        yield
    except (ConfigError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ConfigError(
            f"{path}: the table cannot be read: {reason}. The file is damaged, cut short, or not what its "
            f"ending says; {advice}."
        ) from error


def _read_csv(path: Path, wanted: dict[str, str]) -> RawTable:
    """Everything as text. pyarrow refuses rows of a wrong length, which pandas would shift or fill."""
    names = _csv_names(path)
    present = [name for name in dict.fromkeys(wanted.values()) if name in names]
    if not present:
        return RawTable(names, {}, {})
    one_thread = pa.csv.ReadOptions(use_threads=False)  # only so do messages have row numbers
    parse = pa.csv.ParseOptions(newlines_in_values=True)
    types = dict.fromkeys(present, pa.string())
    convert = pa.csv.ConvertOptions(include_columns=present, column_types=types)
    try:
        table = pa.csv.read_csv(path, one_thread, parse, convert)
    except pa.ArrowInvalid as error:
        raise ConfigError(f"{path}: {_csv_advice(str(error))}") from error
    return RawTable(names, {name: _plain(table[name].to_pylist()) for name in present}, {})


def _csv_names(path: Path) -> list[str]:
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as file:
        return next(filter(None, csv.reader(file)), [])


def _csv_advice(message: str) -> str:
    # pyarrow counts the header as row 1
    message = re.sub(r"Row #(\d+)", lambda found: f"row {int(found.group(1)) - 1}", message)
    if "UTF8" in message:
        return f"the text is not UTF-8 ({message}). Save the table as UTF-8."
    if "Expected" in message:
        return (
            f"a row has more or fewer values than the header ({message}). Are there decimal commas, or "
            "commas in a text that is not in quotes?"
        )
    return f"this is not a readable CSV table ({message})."


def _read_parquet(path: Path, wanted: dict[str, str]) -> RawTable:
    with parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        present = [name for name in dict.fromkeys(wanted.values()) if name in schema.names]
        table = file.read(columns=present)
    values, units = {}, {}
    for name in present:
        if schema.names.count(name) > 1:
            continue  # reported by _require_columns
        column = table[name]
        if pa.types.is_floating(column.type):
            values[name] = column.cast(pa.float64()).to_numpy()
        else:
            values[name] = _plain(column.to_pylist())
        unit = (schema.field(name).metadata or {}).get(b"unit")
        if unit:
            units[name] = unit.decode()
    return RawTable(schema.names, values, units)


def _read_fits(path: Path, wanted: dict[str, str]) -> RawTable:
    from astropy.table import Table

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*truncated.*")
        table = Table.read(path, format="fits")
    return from_astropy(table, wanted)


def _read_votable(path: Path, wanted: dict[str, str]) -> RawTable:
    content = path.read_bytes()
    tables = list(parse_votable(content).iter_tables())
    if len(tables) != 1:
        raise ConfigError(f"{path}: the file holds {len(tables)} tables; galgaze reads files with exactly one.")
    return from_astropy(tables[0].to_table(use_names_over_ids=True), wanted)


def parse_votable(content: bytes):
    """Parse strictly where it counts: a number that is none would silently be masked otherwise."""
    from astropy.io.votable import parse
    from astropy.io.votable.exceptions import E02, W30, W51

    if re.search(rb"<(\w+:)?STREAM\b[^>]*\bhref", content, re.IGNORECASE):
        raise ValueError("the data are not in the file, only a link to them")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tree = parse(BytesIO(content), invalid="exception", verify="warn")
    for warning in caught:
        if isinstance(warning.message, (E02, W30, W51)):
            raise ValueError(str(warning.message).removeprefix("?:"))
    return tree


def from_astropy(table, wanted: dict[str, str]) -> RawTable:
    """The wanted columns of an astropy table, and their units."""
    present = [name for name in dict.fromkeys(wanted.values()) if name in table.colnames]
    values = {name: _from_astropy_column(table[name]) for name in present}
    units = {name: str(table[name].unit) for name in present if table[name].unit is not None}
    return RawTable(list(table.colnames), values, units)


def _from_astropy_column(column) -> np.ndarray:
    if column.dtype.kind == "f" and column.ndim == 1:
        return np.ma.filled(np.ma.asarray(column, dtype=np.float64), np.nan)
    masked = np.ma.getmaskarray(np.ma.asarray(column))
    items = [item.rstrip() if isinstance(item, str) else item for item in column.tolist()]  # padded widths
    return _plain([None if np.all(hidden) else item for item, hidden in zip(items, masked, strict=True)])


def _plain(items: list) -> np.ndarray:
    """An object array of str, int, float and None; bytes are decoded."""
    array = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        if isinstance(item, (list, tuple, dict, bool)):
            raise ValueError(f"row {index + 1} holds {item!r} where one number or text is needed")
        array[index] = item.decode() if isinstance(item, bytes) else item
    return array


READERS: dict[str, Callable[[Path, dict[str, str]], RawTable]] = {
    ".csv": _read_csv,
    ".csv.gz": _read_csv,
    ".parquet": _read_parquet,
    ".fits": _read_fits,
    ".fits.gz": _read_fits,
    ".vot": _read_votable,
    ".votable": _read_votable,
    ".xml": _read_votable,
}
