"""Sources from a query, whatever the service: asked once, and the answer kept.

A service is a module with `POSITION` (its columns of RA and Dec), `require_sound`, `asked` and `ask`.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from galgaze.config import QuerySource
from galgaze.fields import noirlab, sdss, vizier
from galgaze.fields.kept import keep, kept_sha256, read_kept
from galgaze.fields.rows import checked_rows, wanted_columns
from galgaze.fields.tables import from_astropy

SERVICES = {"vizier": vizier, "noirlab": noirlab, "sdss": sdss}


def resolve_query(query: QuerySource, saved: Path, contact: str = "") -> str:
    """Ask the service once and keep the answer.

    Parameters
    ----------
    query : QuerySource
        What to ask.
    saved : Path
        Where the answer is kept, as an ECSV table that tells its query. If the file exists nothing is asked
        and it is left as it is.
    contact : str
        Who asks, told to the service.

    Returns
    -------
    str
        SHA-256 of the file.

    Raises
    ------
    ConfigError
        If nothing was found, the answer is cut short or lacks a column, the server or the query cannot be
        right, or the kept answer is to another query.
    TransientError
        If the service could not be reached or failed; nothing is kept, and the same command asks again.
    """
    saved, service = Path(saved), SERVICES[query.service]
    service.require_sound(query)
    if saved.exists():
        read_kept(saved, service.asked(query))
    else:
        keep(service.ask(query, contact), saved)
    return kept_sha256(saved)


def read_query(
    saved: Path, query: QuerySource, labels: dict[str, str | None], classes: Sequence[str] | None
) -> pd.DataFrame:
    """Read and check the kept answer to a query (see `resolve_query`); otherwise as `read_table`."""
    service = SERVICES[query.service]
    table = read_kept(Path(saved), service.asked(query))
    columns = query.columns.model_copy(update=service.POSITION)
    return checked_rows(from_astropy(table, wanted_columns(columns)), columns, labels, classes, str(saved))
