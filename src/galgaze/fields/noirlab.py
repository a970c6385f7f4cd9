"""Sources from the Legacy Surveys' catalogues at NOIRLab's Astro Data Lab, by TAP and ADQL.

Data Lab's ADQL knows neither the geometric functions of the standard (CONTAINS, CIRCLE) nor Q3C's, so regions
are ranges and trigonometry. Its TAP reports errors of a query with HTTP status 200. Of a tractor table are
taken: primary detections (`brick_primary`) that are neither point sources nor doubles of Gaia stars (`type`).
pyvo is imported only where a query is asked.
"""

import re
from datetime import UTC, datetime
from html import unescape

from galgaze.config import QuerySource
from galgaze.errors import ConfigError, TransientError
from galgaze.fields import answers, conditions
from galgaze.words import user_agent

ADDRESS = "https://datalab.noirlab.edu/tap"
TIMEOUT_S = 600.0  # without a byte; the service itself ends a synchronous query sooner
TABLE = re.compile(r"ls_dr(\d{1,2})\.tractor(_[ns])?", re.ASCII)
CUTS = ("mag_", "shape_r")  # what stands before a band's name, and the column of radii
POSITION = conditions.POSITION
FAILED = re.compile(  # whatever the order of its attributes, or if the status is one
    rb"<(?:\w+:)?INFO\b(?=[^>]*QUERY_STATUS)(?=[^>]*\bERROR\b)[^>]*>([^<]*)", re.IGNORECASE
)
WRONG_QUERY = re.compile("not found|does not exist|unknown|parse|syntax|IllegalArgument|permission", re.IGNORECASE)


def require_sound(query: QuerySource) -> None:
    """Refuse what is no query of a tractor table, before anything is asked (ConfigError)."""
    release = TABLE.fullmatch(query.catalogue)
    if not release:
        raise ConfigError(
            f"query.catalogue: {query.catalogue!r} is not a table of the Legacy Surveys; galgaze takes ls_dr9.tractor, "
            "ls_dr10.tractor and the like from noirlab."
        )
    bands = "griz" if int(release[1]) >= 10 else "grz"
    if query.magnitude and query.magnitude.band not in bands:
        raise ConfigError(f"query.magnitude.band: {query.catalogue} has the bands {', '.join(bands)}.")
    conditions.require_names(query)
    adql(query)


def asked(query: QuerySource) -> dict:
    """What decides about the answer, as kept with it."""
    return conditions.asked(query, conditions.cut_columns(query, *CUTS))


def ask(query: QuerySource, contact: str = ""):
    """Data Lab's answer as an astropy table with at least one and at most ``row_limit`` rows, sorted by id.

    Raises
    ------
    ConfigError, TransientError
        As `galgaze.fields.resolve_query` says.
    """
    who, text = f"noirlab {query.catalogue}", adql(query)
    content, url = _post(query, text, contact)
    tree = answers.parsed_votable(content, url)
    table = answers.only_table(tree, who)
    answers.require_at_most(len(table), query.row_limit, who)
    _require_whole(tree, len(table), who)
    answers.require_columns(table.colnames, [*POSITION.values(), *asked(query)["columns"]], who)
    table.sort(query.columns.source_id)  # databases give rows in any order
    table.meta = {
        "query": asked(query),
        "adql": text,
        "server": url,
        "asked": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return table


def adql(query: QuerySource) -> str:
    """The query, for one row more than the limit; ConfigError for a region that cannot be asked for."""
    region = (
        conditions.cone_conditions(query.cone, "ra", "dec")
        if query.cone
        else conditions.box_conditions(query.box, "ra", "dec")
    )
    cuts = ["brick_primary = 1", "type <> 'PSF'", "type <> 'DUP'", *conditions.cut_conditions(query, *CUTS)]
    columns = [*POSITION.values(), *asked(query)["columns"]]
    return (
        f"SELECT TOP {query.row_limit + 1} {', '.join(columns)} FROM {query.catalogue} "
        f"WHERE {' AND '.join([*region, *cuts])}"
    )


def _post(query: QuerySource, text: str, contact: str) -> tuple[bytes, str]:
    """Send the query; the answer's body and the address that gave it."""
    import requests  # what pyvo speaks HTTP with
    from pyvo.dal.tap import TAPQuery

    class Session(requests.Session):
        def request(self, *arguments, **options):
            return super().request(*arguments, **{"timeout": TIMEOUT_S} | options)

    server = (query.server or ADDRESS).rstrip("/")
    address = server if "://" in server else f"https://{server}/tap"
    with Session() as session:
        session.headers["User-Agent"] = user_agent(contact)
        question = TAPQuery(address, text, maxrec=query.row_limit + 1, session=session)
        try:
            response = question.submit()
            content = response.content
        except requests.RequestException as error:
            raise answers.refused_connection(error, question.queryurl, "Data Lab") from error
    _require_no_error(content, question.queryurl)
    answers.require_success(response.status_code, question.queryurl, "a TAP service (its address ends in /tap)")
    return content, question.queryurl


def _require_no_error(content: bytes, url: str) -> None:
    """A TAP error document comes under any HTTP status, and behind a part of the rows too."""
    failed = FAILED.search(content)
    if not failed:
        return
    reason = " ".join(unescape(failed[1].decode("utf-8", "replace")).split())[:300] or "it does not say why"
    if WRONG_QUERY.search(reason):
        raise ConfigError(f"{url} refused the query: {reason}. Correct query.catalogue or query.columns.")
    raise TransientError(
        f"{url} could not answer the query: {reason}. Run the same command again later; if it took too long, narrow "
        "the region or the cuts."
    )


def _require_whole(tree, count: int, who: str) -> None:
    """Refuse rows that the service itself has cut off below our limit."""
    infos = [info for resource in tree.resources for info in resource.infos]
    if any(info.name == "QUERY_STATUS" and str(info.value).upper() == "OVERFLOW" for info in infos):
        raise ConfigError(f"{who}: the service cut the answer short at {count} rows. Narrow the region or the cuts.")
