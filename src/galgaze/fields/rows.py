"""The checks of the rows of a table: ids, positions, numbers, units and labels.

They know no files and no servers. A `RawTable` comes in; a frame with the columns `FIELD_COLUMNS` goes out,
or one `ConfigError` that lists the rows to repair.
"""

import difflib
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from galgaze.config import Columns
from galgaze.errors import ConfigError

NUMBER_COLUMNS = ("ra_deg", "dec_deg", "redshift", "las_arcsec", "petrosian_radius_arcsec")
FIELD_COLUMNS = ("source_id", *NUMBER_COLUMNS, "label")
MAX_ID_LENGTH = 200
MAX_LISTED = 10  # problems spelled out in one message

UNITS = {"ra_deg": "deg", "dec_deg": "deg", "las_arcsec": "arcsec", "petrosian_radius_arcsec": "arcsec"}
UNIT_SPELLINGS = {
    "deg": {"deg", "degree", "degrees"},
    "arcsec": {"arcsec", "arcsecs", "arcsecond", "arcseconds"},
}
ABSENT = {"", "nan", "null", "none", "na", "n/a", "--"}  # in lower case

PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
SEXAGESIMAL = re.compile(r"\d\s*[:hHdD°]\s*\d|\d\s*[hHdD°]$|\d\s+\d")
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
NAMED_IN_HOURS = re.compile(r"hour|hms|[\[(]h[\])]", re.IGNORECASE)
ROUNDED_ID = re.compile(r"\d\.\d+[eE]\+\d{2}|\d{16,}\.0")
WHOLE_NUMBER = re.compile(r"([+-]?\d+)\.0+")

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
DEVICE_NAME = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
HASHED_NAME = re.compile(r"id-[0-9a-f]{32}", re.IGNORECASE)

Problem = tuple[int, str]  # row number and text


@dataclass
class RawTable:
    """A table as read, before any check.

    Attributes
    ----------
    names : list of str
        All columns of the table.
    values : dict of str to numpy.ndarray
        The wanted ones: float arrays, or object arrays of str, int and None.
    units : dict of str to str
        Units of those that state one.
    """

    names: list[str]
    values: dict[str, np.ndarray]
    units: dict[str, str]


def source_list_sha256(frame: pd.DataFrame) -> str:
    """SHA-256 of the checked rows, in their order; the same for the same rows from any format."""
    digest = hashlib.sha256()
    for name in FIELD_COLUMNS:
        digest.update(f"{name}:{len(frame)}\n".encode())
        if name in NUMBER_COLUMNS:
            numbers = frame[name].to_numpy(dtype="<f8") + 0.0  # -0.0 becomes 0.0
            digest.update(np.where(np.isnan(numbers), np.nan, numbers).tobytes())
        else:
            digest.update(json.dumps(frame[name].tolist()).encode())
    return digest.hexdigest()


def safe_name(source_id: str) -> str:
    """A file name for a source: the id itself where that is harmless, otherwise ``id-`` and its hash.

    No id can name a folder, a device or a hidden file, nor pass for another id's hash.
    """
    harmless = (
        SAFE_NAME.fullmatch(source_id)
        and ".." not in source_id
        and not source_id.endswith(".")
        and not DEVICE_NAME.fullmatch(source_id)
        and not HASHED_NAME.fullmatch(source_id)
    )
    return source_id if harmless else "id-" + hashlib.sha256(source_id.encode()).hexdigest()[:32]


# ---------------------------------------------------------------------------------------------- checks


def wanted_columns(columns: Columns) -> dict[str, str]:
    """From our names to the table's, without those that the table does not have."""
    return {key: name for key, name in columns.model_dump().items() if name is not None}


def checked_rows(raw: RawTable, columns: Columns, labels, classes, origin: str) -> pd.DataFrame:
    """The frame that every way in ends in (see `tables.read_table`), or one error for all its rows."""
    wanted = wanted_columns(columns)
    _require_columns(raw, wanted, origin)
    _require_units(raw, wanted, origin)
    count = len(raw.values[columns.source_id])
    if count == 0:
        raise ConfigError(f"{origin}: the table has no rows. A field needs at least one source.")
    ids = _ids(raw.values[columns.source_id], columns.source_id, origin)
    numbers, problems = _all_numbers(raw, wanted, count)
    problems += _id_problems(ids) + _duplicate_problems(ids, numbers["ra_deg"], numbers["dec_deg"])
    _refuse(problems, origin)
    known = _labels(raw, columns, labels, classes, origin, count)
    ids, known = pd.Series(ids, dtype="str"), pd.Series(known, dtype=object)
    return pd.DataFrame({"source_id": ids, **numbers, "label": known})


def _refuse(problems: list[Problem], origin: str) -> None:
    """Raise one error for all problems, the first ones spelled out."""
    if not problems:
        return
    problems = sorted(problems, key=lambda problem: problem[0])
    lines = [f"  - row {row}: {text}" for row, text in problems[:MAX_LISTED]]
    if len(problems) > MAX_LISTED:
        lines.append(f"  and {len(problems) - MAX_LISTED} more")
    raise ConfigError(f"{origin}: these rows cannot be used (row 1 is the first data row):\n" + "\n".join(lines))


def _require_columns(raw: RawTable, wanted: dict[str, str], origin: str) -> None:
    problems = []
    for key, name in wanted.items():
        copies = raw.names.count(name)
        if copies == 0:
            problems.append(
                f"  - there is no column {name!r}{nearest(name, raw.names)}; set columns.{key} to the table's name"
            )
        elif copies > 1:
            problems.append(f"  - column {name!r} (columns.{key}) stands {copies} times in the table; rename one")
    if not problems:
        return
    shown = ", ".join(repr(name) for name in raw.names[:40]) + (", ..." if len(raw.names) > 40 else "")
    hint = ""
    if len(raw.names) == 1 and re.search(r"[;\t|]", raw.names[0]):
        hint = "\nThe columns seem to be separated by something else than commas; save the table with commas."
    raise ConfigError(f"{origin}: columns are missing:\n" + "\n".join(problems) + f"\nThe table has: {shown}{hint}")


def nearest(name: str, known: Sequence[str]) -> str:
    """The known name most like this one, as a question to end a message with; '' if none is."""
    by_lower = {other.lower(): other for other in reversed(known)}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    close = close or [lower for lower in by_lower if name and lower.startswith(name.lower())]
    return f" (did you mean {by_lower[close[0]]!r}?)" if close else ""


def _require_units(raw: RawTable, wanted: dict[str, str], origin: str) -> None:
    """Refuse columns that say they hold another unit than the configuration promises."""
    for key, expected in UNITS.items():
        name = wanted.get(key)
        unit = raw.units.get(name, "")
        if unit and unit.strip().lower() not in UNIT_SPELLINGS[expected]:
            raise ConfigError(
                f"{origin}: column {name!r} (columns.{key}) has the unit {unit!r}; galgaze wants {expected}. "
                "Convert the column, or name another one."
            )
    ra = wanted["ra_deg"]
    if not raw.units.get(ra) and NAMED_IN_HOURS.search(ra):
        raise ConfigError(
            f"{origin}: column {ra!r} (columns.ra_deg) seems by its name to be in hours; galgaze wants "
            "decimal degrees. Convert the column, or rename it if it is in degrees."
        )


# ------------------------------------------------------------------------------------------------- ids


def check_ids(
    ids: Sequence[str],
    ra_deg: Sequence[float] | None = None,
    dec_deg: Sequence[float] | None = None,
    origin: str = "sources",
) -> None:
    """Refuse ids that are empty, too long, unprintable, padded or not unique.

    Parameters
    ----------
    ids : sequence of str
        The ids, in the order of the rows.
    ra_deg, dec_deg : sequence of float, optional
        Positions, to say whether duplicates lie at the same one.
    origin : str
        What the message begins with.

    Raises
    ------
    ConfigError
        Lists the rows.
    """
    _refuse(_id_problems(ids) + _duplicate_problems(ids, ra_deg, dec_deg), origin)


def _ids(values: np.ndarray, name: str, origin: str) -> list[str]:
    """Ids as text, exactly as written; '' where there is none."""
    if values.dtype.kind == "f" or any(isinstance(value, float) for value in values):
        raise ConfigError(
            f"{origin}: column {name!r} (columns.source_id) holds floating-point numbers, which round "
            "integers above 2^53. Store the ids as text or as integers, from the original table."
        )
    return ["" if value is None else str(value) for value in values]


def _id_problems(ids: Sequence[str]) -> list[Problem]:
    found = ((row, _id_problem(source_id)) for row, source_id in enumerate(ids, start=1))
    return [(row, text) for row, text in found if text]


def _id_problem(source_id: str) -> str | None:
    shown = _shown(source_id)
    if not source_id:
        return "the id is empty"
    if len(source_id) > MAX_ID_LENGTH:
        return f"the id {shown} has {len(source_id)} characters; at most {MAX_ID_LENGTH} are allowed"
    if source_id != source_id.strip():
        return f"the id {shown} begins or ends with white space"
    if not source_id.isprintable():
        return f"the id {shown} has control or invisible characters"
    if ROUNDED_ID.fullmatch(source_id):
        return f"the id {shown} is a rounded number; write the ids as text, from the original table"
    return None


def _duplicate_problems(ids: Sequence[str], ra_deg=None, dec_deg=None) -> list[Problem]:
    first: dict[str, int] = {}
    problems = []
    for index, source_id in enumerate(ids):
        before = first.setdefault(source_id, index)
        if before == index or not source_id:
            continue
        where = ""
        if ra_deg is not None and dec_deg is not None:
            same = ra_deg[before] == ra_deg[index] and dec_deg[before] == dec_deg[index]
            where = ", at the same position" if same else ", at a different position"
        problems.append((index + 1, f"the id {_shown(source_id)} stands already in row {before + 1}{where}"))
    return problems


# --------------------------------------------------------------------------------------------- numbers


def _all_numbers(raw: RawTable, wanted: dict[str, str], count: int) -> tuple[dict, list[Problem]]:
    """The `NUMBER_COLUMNS`, NaN where the table has none, and everything wrong with them."""
    numbers, problems = {key: np.full(count, np.nan) for key in NUMBER_COLUMNS}, []
    for key in NUMBER_COLUMNS:
        if key in wanted:
            required = key in ("ra_deg", "dec_deg")
            numbers[key], found = _numbers(raw.values[wanted[key]], wanted[key], required)
            problems += found
    problems += _position_problems(numbers["ra_deg"], numbers["dec_deg"], wanted)
    return numbers, problems + _size_problems(numbers, wanted)


def _numbers(values: np.ndarray, name: str, required: bool) -> tuple[np.ndarray, list[Problem]]:
    """A column as float64, NaN where absent, and what could not be understood."""
    if values.dtype.kind == "f" and np.isfinite(values).all():
        return values.astype(np.float64), []
    numbers, problems = np.full(len(values), np.nan), []
    for index, value in enumerate(values.tolist()):
        try:
            numbers[index] = _number(value)
        except ValueError as error:
            problems.append((index + 1, f"{name} = {_shown(value)} {error}"))
        else:
            if required and math.isnan(numbers[index]):
                problems.append((index + 1, f"{name} is empty"))
    return numbers, problems


def _number(value) -> float:
    """One number, NaN if absent; the text of a ValueError says what is wrong."""
    text = "" if value is None else str(value).strip()
    if text.lower() in ABSENT:
        return math.nan
    if isinstance(value, (int, float)) or PLAIN_NUMBER.fullmatch(text):
        if not math.isfinite(number := float(value)):
            raise ValueError("is not finite")
        return number
    if SEXAGESIMAL.search(text):
        raise ValueError("looks sexagesimal; galgaze wants decimal degrees")
    if DECIMAL_COMMA.fullmatch(text):
        raise ValueError(f"has a decimal comma; write {text.replace(',', '.')}")
    raise ValueError("is not a number")


def _shown(value) -> str:
    """A value for a message: short, and without anything that a terminal would obey."""
    text = str(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return repr(text) if isinstance(value, str) else text


def _position_problems(ra: np.ndarray, dec: np.ndarray, wanted: dict[str, str]) -> list[Problem]:
    problems = []
    for index in np.flatnonzero((ra < 0) | (ra >= 360)):
        problems.append((index + 1, f"{wanted['ra_deg']} = {ra[index]} is outside 0 <= RA < 360"))
    for index in np.flatnonzero(np.abs(dec) > 90):
        swapped = "; the columns of RA and Dec look swapped" if abs(ra[index]) <= 90 else ""
        problems.append((index + 1, f"{wanted['dec_deg']} = {dec[index]} is outside -90 <= Dec <= 90{swapped}"))
    return problems


def _size_problems(numbers: dict[str, np.ndarray], wanted: dict[str, str]) -> list[Problem]:
    """Negative sizes stand for "unknown" in many tables; here an empty cell does."""
    return [
        (index + 1, f"{wanted[key]} = {numbers[key][index]} is negative; leave it empty where it is unknown")
        for key in ("las_arcsec", "petrosian_radius_arcsec")
        for index in np.flatnonzero(numbers[key] < 0)
    ]


# ---------------------------------------------------------------------------------------------- labels


def _labels(raw: RawTable, columns: Columns, labels, classes, origin: str, count: int) -> list[str | None]:
    if columns.label is None:
        if labels:
            raise ConfigError(f"{origin}: labels: is given, but columns.label names no column. Set it.")
        return [None] * count
    _require_classes(labels, classes, origin)
    mapping = {_label_text(key): target for key, target in labels.items()}
    valid = None if classes is None else set(classes)
    texts = [_label_text(value) for value in raw.values[columns.label].tolist()]
    unknown = Counter(text for text in texts if text and text not in mapping and valid and text not in valid)
    if unknown:
        raise ConfigError(f"{origin}: column {columns.label!r}: {_unknown_labels(unknown, classes)}")
    return [mapping.get(text, text or None) for text in texts]


def _label_text(value) -> str:
    """A label as text; 100, 100.0 and "100.0" are "100", and '' is no label."""
    text = "" if value is None else str(value).strip()
    if text.lower() in ("nan", "--"):
        return ""
    whole = WHOLE_NUMBER.fullmatch(text)
    return whole.group(1) if whole else text


def _require_classes(labels: dict[str, str | None], classes: Sequence[str] | None, origin: str) -> None:
    for key, target in labels.items():
        if classes is not None and target is not None and target not in classes:
            raise ConfigError(
                f"{origin}: labels: {key!r} is mapped to {target!r}, which is no class"
                f"{nearest(target, classes)}. The classes are: {', '.join(classes)}"
            )


def _unknown_labels(unknown: Counter, classes: Sequence[str]) -> str:
    listed = ", ".join(f"{_shown(text)} ({count} rows)" for text, count in unknown.most_common(MAX_LISTED))
    more = f" and {len(unknown) - MAX_LISTED} more" if len(unknown) > MAX_LISTED else ""
    hint = ""
    if all(text.isdecimal() for text in unknown):
        hint = " A number is not taken for a class index."
    example = json.dumps({unknown.most_common(1)[0][0]: classes[0]})
    return (
        f"these labels are no classes: {listed}{more}.{hint} Map them under labels:, for example {example}, "
        f"or to null where they are not to be used. The classes are: {', '.join(classes)}"
    )
