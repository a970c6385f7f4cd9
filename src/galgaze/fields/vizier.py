"""Sources from a VizieR catalogue, through astroquery.

Positions are always VizieR's computed ``_RAJ2000`` and ``_DEJ2000``, decimal degrees for every catalogue; the
catalogues' own columns are often sexagesimal text (FIRST's are). astropy and astroquery are imported only
where a query is asked.
"""

import re
from datetime import UTC, datetime

from galgaze.config import QuerySource
from galgaze.errors import ConfigError, TransientError
from galgaze.fields import answers
from galgaze.words import user_agent

POSITION = {"ra_deg": "_RAJ2000", "dec_deg": "_DEJ2000"}  # computed by VizieR, decimal degrees
VIZIER_TIMEOUT_S = 300.0  # without a byte


def asked(query: QuerySource) -> dict:
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


def ask(query: QuerySource, contact: str = ""):
    """VizieR's answer as an astropy table with at least one and at most ``row_limit`` rows.

    Raises
    ------
    ConfigError, TransientError
        As `galgaze.fields.resolve_query` says.
    """
    content, url = _post(query, contact)
    tree = answers.parsed_votable(content, url)
    said = _said(tree)
    if any(name == "QUERY_STATUS" and value.startswith("ERROR") for name, value in said):
        raise TransientError(f"{url}: VizieR failed{_quoted(said)}. Run the same command again later.")
    who = f"VizieR {query.catalogue}"
    table = answers.only_table(tree, who, _quoted(said))
    answers.require_at_most(len(table), query.row_limit, who)
    needed = [*asked(query)["columns"], *POSITION.values()]
    answers.require_columns(table.colnames, needed, who, _quoted(said))
    when = datetime.now(UTC).isoformat(timespec="seconds")
    table.meta = {"query": asked(query), "server": url, "asked": when}
    return table


def require_sound(query: QuerySource) -> None:
    """Refuse what is no query of a VizieR catalogue, before anything is asked (ConfigError)."""
    given = {"ra_deg", "dec_deg"} & query.columns.model_fields_set
    for key in sorted(given):
        name = getattr(query.columns, key)
        if name not in (POSITION[key], POSITION[key].removeprefix("_")):
            raise ConfigError(
                f"query.columns.{key}: a query takes its positions from VizieR's computed "
                f"{POSITION[key]}, not from {name!r}. Leave the key out."
            )
    for name, condition in query.constraints.items():
        if not re.fullmatch(r"[^-+\s=][^\s=]*", name) or "\n" in condition or not condition.strip():
            raise ConfigError(
                f"query.constraints: {name!r}: {condition!r} is not a column and a condition, such as Fint: '>10'"
            )


def _post(query: QuerySource, contact: str) -> tuple[bytes, str]:
    """Send the query; the answer's body and the address that gave it."""
    import requests  # what astroquery speaks HTTP with
    from astropy.coordinates import SkyCoord

    vizier = _vizier(query)
    vizier._session.headers["User-Agent"] = user_agent(contact)
    region = query.cone or query.box
    centre = SkyCoord(region.ra_deg, region.dec_deg, unit="deg", frame="icrs")
    if query.cone:
        extent = {"radius": f"{region.radius_deg}d"}
    else:
        extent = {"width": f"{region.width_deg}d", "height": f"{region.height_deg}d"}
    url = vizier._server_to_url()
    try:
        response = vizier.query_region_async(centre, **extent, frame="icrs", cache=False)
    except requests.RequestException as error:
        raise answers.refused_connection(error, url, "VizieR") from error
    answers.require_success(response.status_code, url, "a VizieR server")
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
        columns=[*asked(query)["columns"], *POSITION.values()],
        column_filters=query.constraints,
        catalog=query.catalogue,
        row_limit=query.row_limit + 1,
        vizier_server=query.server or conf.server,
        timeout=VIZIER_TIMEOUT_S,
    )


def _said(tree) -> list[tuple[str, str]]:
    """Name and text of everything that VizieR remarks about an answer."""
    holders = [tree, *tree.resources, *tree.iter_tables()]
    infos = [info for holder in holders for info in holder.infos]
    return [(info.name or "", " ".join(f"{info.value} {info.content or ''}".split())) for info in infos]


def _quoted(said: list[tuple[str, str]]) -> str:
    """Warnings and errors among VizieR's remarks, for the end of a message."""
    remarks = [text for name, text in said if re.search("warning|error|status", name, re.IGNORECASE)]
    return f" (VizieR says: {'; '.join(remarks[:5])})" if remarks else ""
