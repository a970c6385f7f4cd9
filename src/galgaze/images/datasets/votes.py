"""Tables of Galaxy Zoo vote fractions, under the column names that the projects have given them."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pyarrow import parquet

from galgaze.errors import ConfigError
from galgaze.fields.tables import as_config_error
from galgaze.tasks import QUESTIONS, Question

COLUMNS = tuple(f"{question.name}_{answer}" for question in QUESTIONS for answer in question.answers)
ID_COLUMNS = ("source_id", "id_str", "iauname", "dr7objid", "file")  # ours; Galaxy Zoo's, by project
TOLERANCE = 0.05  # fractions in tables are rounded, and some volunteers skip a question
BLANKS = ["", "NA", "NaN", "nan", "null", "None"]
EITHER = "either"  # of a project that asked "bar or no bar": strong or weak

# Spellings with hyphens as underscores. Galaxy Zoo 2 (Willett et al. 2013): t03_bar_a07_no_bar_fraction. Galaxy Zoo
# DECaLS (Walmsley et al. 2022): bar_strong_fraction; in later collections with the survey: bar-dr5_strong_fraction.
QUESTION_NAMES = {
    "smooth_or_featured": ("smooth_or_featured", "smooth_or_features"),
    "disk_edge_on": ("disk_edge_on", "edgeon"),
    "has_spiral_arms": ("has_spiral_arms", "spiral"),
    "bar": ("bar",),
}
ANSWER_NAMES = {
    "smooth_or_featured": {
        "smooth": "smooth",
        "featured": "featured",
        "featured_or_disk": "featured",
        "features_or_disk": "featured",
        "artifact": "artifact",
        "star_or_artifact": "artifact",
    },
    "disk_edge_on": {"yes": "yes", "no": "no"},
    "has_spiral_arms": {"yes": "yes", "no": "no", "spiral": "yes", "no_spiral": "no"},
    "bar": {"strong": "strong", "weak": "weak", "no": "no", "no_bar": "no", "yes": EITHER, "bar": EITHER},
}
# What a column holds, by how it ends; the first of these that a table has counts. Plain fractions stand before debiased
# ones: those tell what would be seen from nearer by, and not in the image that is trained on.
ENDINGS = ("_fraction", "_weighted_fraction", "", "_debiased")


def read_votes(path: Path, id_column: str | None = None) -> pd.DataFrame:
    """Read a table of vote fractions.

    Parameters
    ----------
    path : Path
        CSV or Parquet (by ending: .csv, .csv.gz, .parquet).
    id_column : str, optional
        Which column holds the sources' ids; None: the first of `ID_COLUMNS` that there is.

    Returns
    -------
    pandas.DataFrame
        As `vote_fractions` gives it, with the ids as index (text, named ``source_id``).

    Raises
    ------
    ConfigError
        If the file cannot be read, has no such column, has a row without an id or an id twice, or for any of the
        reasons of `vote_fractions`.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file (paths count from {Path.cwd()}). Give a table of votes.")
    with as_config_error(path):
        table = _read_columns(path, [id_column] if id_column else ID_COLUMNS)
    ids = table.pop(table.columns[0])
    faulty = ids.isna() | (ids.astype(str) == "") | ids.duplicated()
    if faulty.any():
        row = int(np.flatnonzero(faulty)[0])
        what = "no id" if not ids[row] or pd.isna(ids[row]) else f"the id {ids[row]!r} a second time"
        raise ConfigError(f"{path}: row {row + 1} has {what} in {ids.name}; each source has one row of votes.")
    return vote_fractions(table.set_axis(ids.astype(str).rename("source_id")), str(path))


def _read_columns(path: Path, id_columns: Sequence[str]) -> pd.DataFrame:
    """The id first, as text, and every column of votes."""
    if path.name.endswith(".parquet"):
        names = parquet.read_schema(path).names
    elif path.name.endswith((".csv", ".csv.gz")):
        names = list(pd.read_csv(path, nrows=0).columns)
    else:
        raise ConfigError(f"{path}: votes are read from .csv, .csv.gz and .parquet; save the table as one of them.")
    id_column = next((name for name in id_columns if name in names), None)
    if id_column is None:
        raise ConfigError(
            f"{path}: no column of the sources' ids ({' or '.join(id_columns)}); it has {', '.join(names[:20])}."
        )
    wanted = [id_column, *(name for name in names if name != id_column and _meaning(name))]
    if path.name.endswith(".parquet"):
        return pd.read_parquet(path, columns=wanted)
    # "NA" is an id like any other, and numbers of 18 digits stay whole
    blank = {name: BLANKS for name in wanted if name != id_column}
    table = pd.read_csv(path, usecols=wanted, dtype={id_column: str}, keep_default_na=False, na_values=blank)
    return table[wanted]


def vote_fractions(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    """Pick the vote fractions that galgaze's questions need out of a table.

    It knows the names of Galaxy Zoo DECaLS (``bar_strong_fraction``), the same with the survey (``bar-dr5_...``; of
    several surveys a row takes the first that has votes on the question), of Galaxy Zoo 2
    (``t03_bar_a06_bar_fraction``) and our own (``bar_strong``). Plain fractions are taken where there are any, then
    weighted and last debiased ones. Galaxy Zoo 2 asked only "bar or no bar": then strong and weak are NaN, "no" is
    known, and `galgaze.models.questions.question_loss` trains the sum of the two.

    A question whose columns are all there and all 0 in a row was never asked: NaN. An answer that alone is missing is
    what the others leave. Fractions that sum to 1 within 0.05 are scaled to do so exactly.

    Parameters
    ----------
    table : pandas.DataFrame
        Of any columns.
    origin : str
        Where it is from, for messages.

    Returns
    -------
    pandas.DataFrame
        The table's index; `COLUMNS` in their order, float64 in 0..1, NaN where not known.

    Raises
    ------
    ConfigError
        If no column is known; or a fraction is no number or not in 0..1, or those of a question do not sum to 1,
        with the row.
    """
    found: dict[str, dict[tuple[int, str], dict[str, str]]] = {}
    for column in table.columns:
        meaning = _meaning(str(column))
        if meaning is not None:
            question, family, answer = meaning
            found.setdefault(question, {}).setdefault(family, {})[answer] = column
    if not found:
        raise ConfigError(
            f"{origin}: no column of votes. Looked for smooth-or-featured_smooth_fraction, "
            "smooth-or-featured_featured-or-disk_fraction, disk-edge-on_yes_fraction, has-spiral-arms_yes_fraction, "
            "bar_strong_fraction, bar_weak_fraction, bar_no_fraction and the like (Galaxy Zoo DECaLS; also with the "
            "survey, bar-dr5_strong_fraction), t03_bar_a06_bar_fraction and the like (Galaxy Zoo 2), or "
            f"{', '.join(COLUMNS)}. It has {', '.join(map(str, table.columns[:20]))}."
        )
    parts = [_of_question(table, question, found.get(question.name, {}), origin) for question in QUESTIONS]
    return pd.DataFrame(np.concatenate(parts, axis=1), index=table.index, columns=list(COLUMNS))


def _meaning(column: str) -> tuple[str, tuple[int, str], str] | None:
    """Question, family (rank of the ending, survey) and answer of a column; None if it holds no votes for us."""
    for (question, ending), pattern in PATTERNS.items():
        match = pattern.fullmatch(column.replace("-", "_").lower())
        # Without an ending only our own names: in Galaxy Zoo's tables these are numbers of votes.
        if match and (ending or (column in COLUMNS)):
            answer = ANSWER_NAMES[question][match["answer"]]
            return question, (ENDINGS.index(ending), match["survey"] or ""), answer
    return None


def _patterns() -> dict[tuple[str, str], re.Pattern]:
    patterns = {}
    for question, spellings in QUESTION_NAMES.items():
        # no_bar before bar, lest "no" be taken for a survey
        answers = "|".join(sorted(ANSWER_NAMES[question], key=len, reverse=True))
        for ending in ENDINGS:
            text = rf"(t\d\d_)?({'|'.join(spellings)})(_(?P<survey>[a-z0-9]+))??(_a\d\d)?_(?P<answer>{answers}){ending}"
            patterns[question, ending] = re.compile(text)
    return patterns


PATTERNS = _patterns()


def _of_question(table: pd.DataFrame, question: Question, families: dict, origin: str) -> np.ndarray:
    """Fractions (N, answers): of the families with the best ending, row by row the first that has any."""
    result = np.full((len(table), len(question.answers)), np.nan)
    best = min((rank for rank, _ in families), default=0)
    for (rank, _), columns in families.items():
        if rank == best:
            mine = _of_family(table, question, columns, origin)
            empty = np.isnan(result).all(axis=1)
            result[empty] = mine[empty]
    return result


def _of_family(table: pd.DataFrame, question: Question, columns: dict[str, str], origin: str) -> np.ndarray:
    given = {answer: _numbers(table, column, origin) for answer, column in columns.items()}
    names = ", ".join(map(str, columns.values()))
    known = np.stack(list(given.values()), axis=1)
    whole = set(question.answers) <= set(given) or {EITHER, "no"} <= set(given)
    if whole:  # some tables give 0 where a question was never asked
        known[(np.nan_to_num(known) == 0).all(axis=1)] = np.nan
    total = np.nansum(known, axis=1)
    complete = whole & ~np.isnan(known).any(axis=1)
    wrong = (total > 1 + TOLERANCE) | (complete & (total < 1 - TOLERANCE))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ConfigError(
            f"{origin}: row {row + 1} ({table.index[row]}): the fractions {names} sum to {total[row]:.3g}, not to 1. "
            "Give plain vote fractions, question by question (debiased ones need not sum to 1)."
        )
    known = known / np.where(complete | (total > 1), total, 1)[:, None]
    given = dict(zip(given, known.T, strict=True))
    if EITHER in given:
        given.setdefault("no", 1 - given[EITHER])
    nothing = np.full(len(table), np.nan)
    fractions = np.stack([given.get(answer, nothing) for answer in question.answers], axis=1)
    missing = np.isnan(fractions)
    left = (1 - np.nansum(fractions, axis=1)).clip(0, 1)
    return np.where(missing & (missing.sum(axis=1) == 1)[:, None], left[:, None], fractions)


def _numbers(table: pd.DataFrame, column: str, origin: str) -> np.ndarray:
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(float)
    wrong = (np.isnan(values) & table[column].notna().to_numpy()) | (values < 0) | (values > 1 + 1e-6)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ConfigError(
            f"{origin}: row {row + 1} ({table.index[row]}): {column} is {table[column].iloc[row]}; vote fractions are "
            "numbers from 0 to 1. Numbers of votes are to be divided by all votes on the question."
        )
    return values.clip(0, 1)
