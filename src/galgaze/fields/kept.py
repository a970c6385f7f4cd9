"""Answers to queries, kept beside the field as ECSV tables that tell what was asked."""

import hashlib
from pathlib import Path

from galgaze.errors import ConfigError
from galgaze.fields.tables import as_config_error
from galgaze.files import atomic_path


def keep(table, saved: Path) -> None:
    """Write an answer so that the file is there whole or not at all.

    Parameters
    ----------
    table : astropy.table.Table
        The answer; ``table.meta["query"]`` holds what was asked, as plain data.
    saved : Path
        Where to. Texts are kept without the padding around them.
    """
    for name in table.colnames:
        if table[name].dtype.kind == "O":
            texts = ["" if text is None else str(text) for text in table[name].tolist()]
            table.replace_column(name, type(table[name])(texts, unit=table[name].unit, dtype=str))
    with atomic_path(saved) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        table.write(file, format="ascii.ecsv")


def read_kept(saved: Path, asked: dict):
    """The kept answer as an astropy table.

    Parameters
    ----------
    saved : Path
        The file that `keep` wrote.
    asked : dict
        What the query asks now.

    Raises
    ------
    ConfigError
        If the file cannot be read, or answers another query; the message says what has changed.
    """
    from astropy.table import Table

    with as_config_error(saved, "delete it to ask again"):
        table = Table.read(saved, format="ascii.ecsv")
        kept = dict(table.meta["query"])
    keys = dict.fromkeys([*asked, *kept])
    changed = [f"{key} was {kept.get(key)}, is {asked.get(key)}" for key in keys if kept.get(key) != asked.get(key)]
    if changed:
        raise ConfigError(
            f"{saved}: the kept answer is to another query ({'; '.join(changed)}). Delete the file to ask "
            "again, or undo the change."
        )
    return table


def kept_sha256(saved: Path) -> str:
    """SHA-256 of a kept answer, in hexadecimal."""
    return hashlib.sha256(saved.read_bytes()).hexdigest()
