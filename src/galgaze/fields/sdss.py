"""Sources from the Sloan Digital Sky Survey's SkyServer, by SQL through astroquery.

Taken are primary photometric objects that are galaxies (`mode` 1, `type` 3). Redshifts are those of `SpecObj`
without a warning, where the object has a spectrum. SkyServer writes -9999 where it knows nothing, ends long
answers at a limit of its own without a word, and reports errors as web pages with HTTP status 200. Its ids
have 64 bits: they are text from the first byte on. astroquery is imported only where a query is asked.
"""

import csv
import io
import re
from datetime import UTC, datetime
from html import unescape

import numpy as np

from galgaze.config import QuerySource
from galgaze.errors import ConfigError, TransientError
from galgaze.fields import answers, conditions
from galgaze.words import user_agent

ADDRESS = "https://skyserver.sdss.org"
RELEASE = 17
TIMEOUT_S = 660.0  # without a byte; SkyServer ends a query after 600
CUTS = ("petroMag_", "petroRad_r")  # what stands before a band's name, and the column of radii
POSITION = conditions.POSITION
UNITS = {"ra": "deg", "dec": "deg", "petroRad": "arcsec", "petroMag": "mag"}
UNKNOWN = -9999.0
MATCHING = "matching_rows"  # how many rows there are in all, in every row: tells a whole answer from a part
WRONG_QUERY = re.compile("invalid (column|object) name|syntax|could not be bound|ambiguous", re.IGNORECASE)
NOTHING = re.compile("no (objects|entries|rows) ha(ve|s) been found", re.IGNORECASE)


def require_sound(query: QuerySource) -> None:
    """Refuse what cannot be asked, before anything is asked (ConfigError)."""
    if not conditions.NAME.fullmatch(query.catalogue):
        raise ConfigError(f"query.catalogue: {query.catalogue!r} is not a table of SDSS, such as Galaxy or PhotoObj.")
    conditions.require_names(query)
    sql(query)


def asked(query: QuerySource) -> dict:
    """What decides about the answer, as kept with it."""
    return conditions.asked(query, conditions.cut_columns(query, *CUTS)) | {"release": RELEASE}


def ask(query: QuerySource, contact: str = ""):
    """SkyServer's answer as an astropy table with at least one and at most ``row_limit`` rows, sorted by id.

    Raises
    ------
    ConfigError, TransientError
        As `galgaze.fields.resolve_query` says.
    """
    from astropy.table import Table

    who, text = f"SDSS {query.catalogue}", sql(query)
    body, url = _get(query, text, contact)
    names = [*POSITION.values(), *asked(query)["columns"]]
    rows = _whole_rows(body, [*names, MATCHING], query, url, who)
    cells = dict(zip(names, zip(*(row[:-1] for row in rows), strict=True), strict=True))
    texts = {query.columns.source_id, query.columns.label}
    table = Table()
    for name, values in cells.items():
        table[name] = list(values) if name in texts else _numbers(values, name, url)
        table[name].unit = None if name in texts else UNITS.get(name.partition("_")[0])
    table.sort(query.columns.source_id)  # databases give rows in any order
    table.meta = {
        "query": asked(query),
        "sql": text,
        "server": url,
        "asked": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return table


def sql(query: QuerySource) -> str:
    """The query, for one row more than the limit; ConfigError for a region that cannot be asked for.

    A cone goes through SkyServer's fGetNearbyObjEq (degrees, degrees, arcmin), which uses the spatial index.
    """
    tables, where = [f"{query.catalogue} AS g"], ["g.mode = 1", "g.type = 3"]
    if query.cone:
        centre = (query.cone.ra_deg, query.cone.dec_deg, query.cone.radius_deg * 60)
        numbers = ", ".join(conditions.number(value) for value in centre)
        tables.append(f"JOIN dbo.fGetNearbyObjEq({numbers}) AS n ON n.objID = g.objID")
    else:
        where = [*conditions.box_conditions(query.box, "g.ra", "g.dec"), *where]
    redshift = query.columns.redshift
    if redshift:
        tables.append("LEFT JOIN SpecObj AS s ON s.specObjID = g.specObjID AND s.zWarning = 0")
    where += conditions.cut_conditions(query, *(f"g.{name}" for name in CUTS))
    columns = [*POSITION.values(), *asked(query)["columns"]]
    shown = [f"{'s' if name == redshift else 'g'}.{name} AS {name}" for name in columns]
    return (
        f"SELECT TOP {query.row_limit + 1} {', '.join(shown)}, COUNT(*) OVER () AS {MATCHING} "
        f"FROM {' '.join(tables)} WHERE {' AND '.join(where)}"
    )


def _get(query: QuerySource, text: str, contact: str) -> tuple[str, str]:
    """Send the query; the answer's body and the address that gave it."""
    import requests  # what astroquery speaks HTTP with
    from astroquery.sdss import SDSSClass

    server = (query.server or ADDRESS).rstrip("/")
    address = server if "://" in server else f"https://{server}"

    class Client(SDSSClass):
        def _get_query_url(self, data_release):
            return address + self.QUERY_URL_SUFFIX_DR_NEW.format(dr=data_release)

    client = Client()
    client._session.headers["User-Agent"] = user_agent(contact)
    url = client._get_query_url(RELEASE)
    try:
        response = client.query_sql_async(text, timeout=TIMEOUT_S, data_release=RELEASE, cache=False)
    except requests.RequestException as error:
        raise answers.refused_connection(error, url, "SkyServer") from error
    body = response.content.decode("utf-8", "replace")
    said = " ".join(unescape(re.sub("<[^>]+>", " ", body)).split())[:300]
    if (response.status_code != 200 or _is_page(body)) and WRONG_QUERY.search(said):
        raise ConfigError(f"{url} refused the query: {said}. Correct query.catalogue or query.columns.")
    answers.require_success(response.status_code, url, "a SkyServer of SDSS")
    if _is_page(body):
        raise answers.not_whole(url, "CSV table", said or "it is an empty web page")
    return body, url


def _is_page(body: str) -> bool:
    return body.lstrip("\ufeff \t\r\n").startswith(("<", "{")) or "error_message" in body


def _whole_rows(body: str, names: list[str], query: QuerySource, url: str, who: str) -> list[list[str]]:
    """The rows of a CSV answer, if all of them are there and not more than the limit."""
    lines = list(csv.reader(io.StringIO(body.lstrip("\ufeff"))))
    lines = [line for line in lines if line and not line[0].startswith("#")]
    if len(lines) <= 1 and NOTHING.search(body):
        raise answers.no_rows(who)
    if not lines or [name.strip() for name in lines[0]] != names:
        raise answers.not_whole(url, "CSV table", f"it begins with {body[:80]!r}")
    rows = lines[1:]
    if not rows:
        raise answers.no_rows(who)
    if any(len(row) != len(names) or not row[-1].strip().isdecimal() for row in rows) or body[-1] != "\n":
        raise answers.not_whole(url, "CSV table", "it ends within a row")
    matching = int(rows[0][-1])
    answers.require_at_most(matching, query.row_limit, who, matching)
    if len(rows) != matching:
        raise TransientError(
            f"{url} sent {len(rows)} of {matching} rows. Run the same command again later; if it stays so, the service "
            "has a limit of its own: narrow the region or the cuts."
        )
    return [[cell.strip() for cell in row] for row in rows]


def _numbers(values: tuple[str, ...], name: str, url: str) -> np.ndarray:
    """A column as float64, NaN where SDSS knows nothing."""
    try:
        numbers = np.array([float(value) if value.lower() not in ("", "null") else np.nan for value in values])
    except ValueError as error:
        raise answers.not_whole(url, "CSV table", f"{name}: {error}") from error
    return np.where(numbers == UNKNOWN, np.nan, numbers)
