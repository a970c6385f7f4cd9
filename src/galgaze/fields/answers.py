"""Tells a whole answer of a catalogue service from trouble, and whose trouble it is."""

from galgaze.errors import ConfigError, TransientError
from galgaze.fields.rows import nearest
from galgaze.fields.tables import parse_votable


def require_success(status: int, url: str, kind: str) -> None:
    """Refuse an HTTP status other than 200.

    Parameters
    ----------
    status : int
        The status.
    url : str
        What was asked.
    kind : str
        What `query.server` should be, such as ``a VizieR server``.

    Raises
    ------
    ConfigError
        If asking again cannot help.
    TransientError
        If it can.
    """
    if 400 <= status < 500 and status not in (408, 425, 429):
        raise ConfigError(f"{url} answered with HTTP status {status}. Is query.server {kind}?")
    if status != 200:
        raise TransientError(f"{url} answered with HTTP status {status}. Run the same command again later.")


def refused_connection(error: Exception, url: str, who: str) -> Exception:
    """What to raise where `requests` could not get an answer: ConfigError for an address that is none."""
    import requests

    wrong = requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema
    if isinstance(error, wrong):
        return ConfigError(f"query.server: {url} is not an address ({error}).")
    return TransientError(
        f"{who} could not be asked at {url} ({type(error).__name__}: {error}). Check the network "
        "and run the same command again; or name another address in query.server."
    )


def parsed_votable(content: bytes, url: str):
    """An answer as astropy's VOTable tree; TransientError if it is not a whole VOTable."""
    try:
        return parse_votable(content)
    # astropy's VOTable errors are SyntaxErrors
    except (ValueError, OSError, LookupError, SyntaxError) as error:
        raise not_whole(url, "VOTable", str(error)) from error


def not_whole(url: str, form: str, reason: str) -> TransientError:
    """An answer that is cut off, or something else than what was asked for."""
    return TransientError(
        f"{url} answered with something that is not a whole {form} ({' '.join(reason.split())[:200]}). "
        "Run the same command again later; if it stays so, try another query.server."
    )


def only_table(tree, who: str, remarks: str = ""):
    """The one table with rows of a VOTable tree, as an astropy table; otherwise ConfigError."""
    tables = [table for table in tree.iter_tables() if len(table.array)]
    if not tables:
        raise no_rows(who, remarks)
    if len(tables) > 1:
        names = ", ".join(table.name or "unnamed" for table in tables)
        raise ConfigError(f"{who}: several tables answered; name one of: {names}")
    return tables[0].to_table(use_names_over_ids=True)


def no_rows(who: str, remarks: str = "") -> ConfigError:
    """The answer is empty."""
    return ConfigError(
        f"{who}: no rows. Check the catalogue's name, the region (degrees; does the survey reach there?) and the "
        f"cuts or constraints{remarks}."
    )


def require_at_most(count: int, row_limit: int, who: str, matching: int | None = None) -> None:
    """Refuse an answer with more rows than the limit: how many there would have been, one may not know."""
    if count > row_limit:
        known = f" ({matching} match)" if matching else ""
        raise ConfigError(
            f"{who}: the answer was cut short at {row_limit} rows{known}. Raise row_limit, or narrow the region, "
            "the cuts or the constraints."
        )


def require_columns(names: list[str], needed: list[str], who: str, remarks: str = "") -> None:
    """Refuse an answer that lacks columns, and name those like them."""
    missing = [f"{name!r}{nearest(name, names)}" for name in needed if name not in names]
    if missing:
        raise ConfigError(
            f"{who}: the answer lacks the columns {', '.join(missing)}; correct query.columns or "
            f"query.constraints{remarks}"
        )
