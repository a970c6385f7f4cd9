"""Regions and cuts as conditions of SQL and ADQL.

A condition is made of numbers and of names that a pattern has checked: no text of the configuration goes into
a query as it is. Numbers are plain decimals, and none follows a minus sign, since two of those begin a comment.
"""

import math
import re

import numpy as np

from galgaze.config import Box, Cone, MagnitudeCut, QuerySource, RadiusCut
from galgaze.errors import ConfigError

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}", re.ASCII)
KNOWN_MAGNITUDES = (-5.0, 50.0)  # unknown ones are -9999, NaN or Infinity; PostgreSQL's NaN exceeds every number
KNOWN_RADII_ARCSEC = (0.0, 3600.0)
MARGIN_DEG = 1e-5  # of the box around a cone, which only speeds up the search
POSITION = {"ra_deg": "ra", "dec_deg": "dec"}  # in both services' tables


def number(value: float) -> str:
    """A number as a decimal without an exponent, every digit kept."""
    return np.format_float_positional(float(value), trim="0")


def require_names(query: QuerySource) -> None:
    """Refuse columns that are not plain names, or positions other than the service's.

    Raises
    ------
    ConfigError
        Names the key.
    """
    for key, name in query.columns.model_dump(exclude_none=True).items():
        if not NAME.fullmatch(name):
            raise ConfigError(f"query.columns.{key}: {name!r} is not a column's name (letters, digits and _).")
        if POSITION.get(key, name) != name:
            raise ConfigError(
                f"query.columns.{key}: {query.service} gives positions in {POSITION[key]!r}, not in {name!r}. "
                "Leave the key out."
            )


def other_columns(query: QuerySource, cuts: list[str]) -> list[str]:
    """The columns to ask for beside the position: those of the plan, and those cut by, each once."""
    columns = query.columns.model_dump(exclude=set(POSITION), exclude_none=True)
    return [name for name in dict.fromkeys([*columns.values(), *cuts]) if name not in POSITION.values()]


def asked(query: QuerySource, cuts: list[str]) -> dict:
    """What decides about the answer, as plain data to keep with it."""
    sections = {key: getattr(query, key) for key in ("cone", "box", "magnitude", "radius")}
    return {
        "service": query.service,
        "catalogue": query.catalogue,
        **{key: section and section.model_dump() for key, section in sections.items()},
        "columns": other_columns(query, cuts),
    }


def magnitude_condition(cut: MagnitudeCut, column: str) -> str:
    """Between the magnitudes, both included; without a limit, everything that is a magnitude."""
    return _between(column, cut.brightest, cut.faintest, KNOWN_MAGNITUDES)


def radius_condition(cut: RadiusCut, column: str) -> str:
    """Between the radii, both included; without a limit, everything that is a radius."""
    return _between(column, cut.smallest_arcsec, cut.largest_arcsec, KNOWN_RADII_ARCSEC)


def _between(column: str, low: float | None, high: float | None, known: tuple[float, float]) -> str:
    low, high = known[0] if low is None else low, known[1] if high is None else high
    return f"{column} BETWEEN {number(low)} AND {number(high)}"


def box_conditions(box: Box, ra: str, dec: str) -> list[str]:
    """Sides along RA and Dec; the width is an angle on the sky at the Dec of the centre.

    |RA - RA0| cos(Dec0) <= width / 2 and |Dec - Dec0| <= height / 2, both included.

    Raises
    ------
    ConfigError
        If the box would reach over a pole.
    """
    south, north = box.dec_deg - box.height_deg / 2, box.dec_deg + box.height_deg / 2
    if south < -90 or north > 90:
        raise ConfigError(
            f"query.box: it reaches from Dec {south:g} to {north:g}, over a pole. Ask for a cone there, or lower "
            "the box."
        )
    shrink = math.cos(math.radians(box.dec_deg))
    half_width = box.width_deg / 2 / shrink if shrink > 0 else 180.0
    return [f"{dec} BETWEEN {number(south)} AND {number(north)}", *_ra_conditions(ra, box.ra_deg, half_width)]


def cone_conditions(cone: Cone, ra: str, dec: str) -> list[str]:
    """A circle without geometric functions: a box around it, for the index, and the haversine formula.

    sin^2((Dec - Dec0) / 2) + cos(Dec0) cos(Dec) sin^2((RA - RA0) / 2) <= sin^2(radius / 2)
    """
    south, north = cone.dec_deg - cone.radius_deg - MARGIN_DEG, cone.dec_deg + cone.radius_deg + MARGIN_DEG
    half_width = 180.0
    if south > -90 and north < 90:
        widest = math.sin(math.radians(cone.radius_deg)) / math.cos(math.radians(cone.dec_deg))
        half_width = math.degrees(math.asin(min(1.0, widest))) + MARGIN_DEG
    shrink = number(math.cos(math.radians(cone.dec_deg)))
    haversine = (
        f"POWER(SIN(RADIANS({_difference(dec, cone.dec_deg)}) / 2), 2) + {shrink} * COS(RADIANS({dec})) * "
        f"POWER(SIN(RADIANS({_difference(ra, cone.ra_deg)}) / 2), 2)"
    )
    return [
        f"{dec} BETWEEN {number(max(south, -90))} AND {number(min(north, 90))}",
        *_ra_conditions(ra, cone.ra_deg, half_width),
        f"{haversine} <= {number(math.sin(math.radians(cone.radius_deg) / 2) ** 2)}",
    ]


def _difference(column: str, value: float) -> str:
    return f"{column} {'-' if value >= 0 else '+'} {number(abs(value))}"


def _ra_conditions(ra: str, centre_deg: float, half_width_deg: float) -> list[str]:
    """RA within ``half_width_deg`` of the centre, across RA 0 too."""
    if half_width_deg >= 180:
        return []
    west, east = centre_deg - half_width_deg, centre_deg + half_width_deg
    if west < 0 or east >= 360:
        return [f"({ra} >= {number(west % 360)} OR {ra} <= {number(east % 360)})"]
    return [f"{ra} BETWEEN {number(west)} AND {number(east)}"]


def cut_columns(query: QuerySource, magnitude: str, radius: str) -> list[str]:
    """The columns that the query's cuts need: the service's ``magnitude`` before the band's name, and ``radius``."""
    return ([magnitude + query.magnitude.band] if query.magnitude else []) + ([radius] if query.radius else [])


def cut_conditions(query: QuerySource, magnitude: str, radius: str) -> list[str]:
    """The query's cuts on these columns, named as in `cut_columns`."""
    cuts = []
    if query.magnitude:
        cuts.append(magnitude_condition(query.magnitude, magnitude + query.magnitude.band))
    if query.radius:
        cuts.append(radius_condition(query.radius, radius))
    return cuts
