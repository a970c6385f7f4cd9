"""Sources from a VizieR query, which is asked once and whose answer is kept.

Positions are always VizieR's computed ``_RAJ2000`` and ``_DEJ2000``, decimal degrees for every catalogue; the
catalogues' own columns are often sexagesimal text (FIRST's are). astropy and astroquery are imported only
where a query is asked or a kept answer is read.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from galgaze.config import QuerySource
from galgaze.errors import ConfigError, TransientError
from galgaze.fields.rows import checked_rows, nearest, wanted_columns
from galgaze.fields.tables import as_config_error, from_astropy, parse_votable

VIZIER_POSITION = {"ra_deg": "_RAJ2000", "dec_deg": "_DEJ2000"}  # computed by VizieR, decimal degrees
VIZIER_TIMEOUT_S = 300.0  # without a byte


def resolve_query(query: QuerySource, saved: Path) -> str:
    """Ask VizieR once and keep the answer.

    Parameters
    ----------
    query : QuerySource
        What to ask.
    saved : Path
        Where the answer is kept, as an ECSV table that tells its query. If the file exists nothing is asked
        and it is left as it is.

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
        If VizieR could not be reached or failed; nothing is kept, and the same command asks again.
    """
    saved = Path(saved)
    _require_sound(query)
    if saved.exists():
        _read_kept(saved, query)
    else:
        _keep(_ask(query), saved)
    return hashlib.sha256(saved.read_bytes()).hexdigest()


def read_query(
    saved: Path, query: QuerySource, labels: dict[str, str | None], classes: Sequence[str] | None
) -> pd.DataFrame:
    """Read and check the kept answer to a query (see `resolve_query`); otherwise as `read_table`."""
    table = _read_kept(Path(saved), query)
    columns = query.columns.model_copy(update=VIZIER_POSITION)
    return checked_rows(from_astropy(table, wanted_columns(columns)), columns, labels, classes, str(saved))


def _asked(query: QuerySource) -> dict:
    """What decides about the answer, as kept with it."""
    columns = query.columns.model_dump(exclude={"ra_deg", "dec_deg"}, exclude_none=True)
    return {
        "catalogue": query.catalogue,
        "cone": query.cone and query.cone.model_dump(),
        "box": query.box and query.box.model_dump(),
        "constraints": dict(query.constraints),
        # Constrained columns are asked for too: a constraint on an unknown one could be ignored unnoticed.
        "columns": list(dict.fromkeys([*columns.values(), *query.constraints])),
    }


def _ask(query: QuerySource):
    """VizieR's answer as an astropy table with at least one and fewer than ``row_limit`` rows."""
    content, url = _post(query)
    tree = _parse_answer(content, url)
    said = _said(tree)
    if any(name == "QUERY_STATUS" and value.startswith("ERROR") for name, value in said):
        raise TransientError(f"{url}: VizieR failed{_quoted(said)}. Run the same command again later.")
    table = _only_table(tree, query, _quoted(said))
    _require_whole(table, query, _quoted(said))
    asked = datetime.now(UTC).isoformat(timespec="seconds")
    table.meta = {"query": _asked(query), "server": url, "asked": asked}
    return table


def _parse_answer(content: bytes, url: str):
    try:
        return parse_votable(content)
    # astropy's VOTable errors are SyntaxErrors
    except (ValueError, OSError, LookupError, SyntaxError) as error:
        raise TransientError(
            f"{url} answered with something that is not a whole VOTable "
            f"({' '.join(str(error).split())[:200]}). Run the same command again "
            "later; if it stays so, try another query.server."
        ) from error


def _require_whole(table, query: QuerySource, remarks: str) -> None:
    """Refuse an answer that may lack rows, or lacks columns."""
    if len(table) >= query.row_limit:
        raise ConfigError(
            f"VizieR {query.catalogue}: the answer was cut short at {query.row_limit} rows. Raise row_limit, "
            "or narrow the region or the constraints."
        )
    needed = [*_asked(query)["columns"], *VIZIER_POSITION.values()]
    missing = [f"{name!r}{nearest(name, table.colnames)}" for name in needed if name not in table.colnames]
    if missing:
        raise ConfigError(
            f"VizieR {query.catalogue}: the answer lacks the columns {', '.join(missing)}; correct "
            f"query.columns or query.constraints{remarks}"
        )


def _require_sound(query: QuerySource) -> None:
    given = {"ra_deg", "dec_deg"} & query.columns.model_fields_set
    for key in sorted(given):
        name = getattr(query.columns, key)
        if name not in (VIZIER_POSITION[key], VIZIER_POSITION[key].removeprefix("_")):
            raise ConfigError(
                f"query.columns.{key}: a query takes its positions from VizieR's computed "
                f"{VIZIER_POSITION[key]}, not from {name!r}. Leave the key out."
            )
    for name, condition in query.constraints.items():
        if not re.fullmatch(r"[^-+\s=][^\s=]*", name) or "\n" in condition or not condition.strip():
            raise ConfigError(
                f"query.constraints: {name!r}: {condition!r} is not a column and a condition, such as Fint: '>10'"
            )


def _post(query: QuerySource) -> tuple[bytes, str]:
    """Send the query; the answer's body and the address that gave it."""
    import requests  # what astroquery speaks HTTP with
    from astropy.coordinates import SkyCoord

    vizier = _vizier(query)
    region = query.cone or query.box
    centre = SkyCoord(region.ra_deg, region.dec_deg, unit="deg", frame="icrs")
    if query.cone:
        extent = {"radius": f"{region.radius_deg}d"}
    else:
        extent = {"width": f"{region.width_deg}d", "height": f"{region.height_deg}d"}
    url = vizier._server_to_url()
    try:
        response = vizier.query_region_async(centre, **extent, frame="icrs", cache=False)
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
        raise ConfigError(f"query.server: {url} is not an address ({error}).") from error
    except requests.RequestException as error:
        raise TransientError(
            f"VizieR could not be asked at {url} ({type(error).__name__}: {error}). Check the network "
            "and run the same command again; or name a mirror in query.server."
        ) from error
    _require_success(response.status_code, url)
    return response.content, url


def _vizier(query: QuerySource):
    """An astroquery client that also takes a whole address, such as http://127.0.0.1:8000, for a server."""
    from astroquery.vizier import VizierClass, conf

    class Client(VizierClass):
        def _server_to_url(self, return_type="votable"):
            server = self.VIZIER_SERVER.rstrip("/")
            address = server if "://" in server else f"https://{server}"
            return f"{address}/viz-bin/{return_type}"

    return Client(
        columns=[*_asked(query)["columns"], *VIZIER_POSITION.values()],
        column_filters=query.constraints,
        catalog=query.catalogue,
        row_limit=query.row_limit,
        vizier_server=query.server or conf.server,
        timeout=VIZIER_TIMEOUT_S,
    )


def _require_success(status: int, url: str) -> None:
    if 400 <= status < 500 and status not in (408, 429):
        raise ConfigError(f"{url} answered with HTTP status {status}. Is query.server a VizieR server?")
    if status != 200:
        raise TransientError(f"{url} answered with HTTP status {status}. Run the same command again later.")


def _said(tree) -> list[tuple[str, str]]:
    """Name and text of everything that VizieR remarks about an answer."""
    holders = [tree, *tree.resources, *tree.iter_tables()]
    infos = [info for holder in holders for info in holder.infos]
    return [(info.name or "", " ".join(f"{info.value} {info.content or ''}".split())) for info in infos]


def _quoted(said: list[tuple[str, str]]) -> str:
    """Warnings and errors among VizieR's remarks, for the end of a message."""
    remarks = [text for name, text in said if re.search("warning|error|status", name, re.IGNORECASE)]
    return f" (VizieR says: {'; '.join(remarks[:5])})" if remarks else ""


def _only_table(tree, query: QuerySource, remarks: str):
    tables = [table for table in tree.iter_tables() if len(table.array)]
    if not tables:
        raise ConfigError(
            f"VizieR {query.catalogue}: no rows. Check the catalogue's name, the region (degrees) and the "
            f"constraints{remarks}."
        )
    if len(tables) > 1:
        names = ", ".join(table.name or "unnamed" for table in tables)
        raise ConfigError(f"VizieR {query.catalogue}: several tables answered; name one of: {names}")
    return tables[0].to_table(use_names_over_ids=True)


def _keep(table, saved: Path) -> None:
    """Write the table so that the file is there whole or not at all (ECSV drops padding around texts)."""
    for name in table.colnames:
        if table[name].dtype.kind == "O":
            texts = ["" if text is None else str(text) for text in table[name].tolist()]
            table.replace_column(name, type(table[name])(texts, unit=table[name].unit, dtype=str))
    saved.parent.mkdir(parents=True, exist_ok=True)
    partial = saved.with_name(f".{saved.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            table.write(file, format="ascii.ecsv")
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, saved)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _read_kept(saved: Path, query: QuerySource):
    """The kept answer as an astropy table, if it is to this query."""
    from astropy.table import Table

    with as_config_error(saved, "delete it to ask again"):
        table = Table.read(saved, format="ascii.ecsv")
        kept = dict(table.meta["query"])
    now = _asked(query)
    changed = [f"{key} was {kept.get(key)}, is {now[key]}" for key in now if kept.get(key) != now[key]]
    if changed:
        raise ConfigError(
            f"{saved}: the kept answer is to another query ({'; '.join(changed)}). Delete the file to ask "
            "again, or undo the change."
        )
    return table
