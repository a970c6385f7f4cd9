"""A local server that answers astroquery's VizieR queries from a small table.

It speaks ASU as far as astroquery does: lines of `key=value` in the body, `-source`, `-out`, `-out.add`,
`-out.max`, a cone (`-c.rd`) or a box (`-c.bd`) around `-c`, and constraints such as `Fint=>10`.
It remarks on unknown columns, ignores constraints on them, and leaves the table out when no row is left.
"""

import operator
import re
from urllib.parse import urlencode
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from tests.servers import base

COMPARISONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "=": operator.eq}
# Like VIII/92/first14: names and sexagesimal positions are text.
FIELDS = {
    "FIRST": 'datatype="char" arraysize="16"',
    "RAJ2000": 'datatype="char" arraysize="12" unit="&quot;h:m:s&quot;"',
    "DEJ2000": 'datatype="char" arraysize="12" unit="&quot;d:m:s&quot;"',
    "Fint": 'datatype="float" unit="mJy"',
    "Maj": 'datatype="float" unit="arcsec"',
    "_RAJ2000": 'datatype="double" unit="deg"',
    "_DEJ2000": 'datatype="double" unit="deg"',
}


class VizierServer(base.SurveyServer):
    """`VizierServer(rows)` serves rows of (name, ra_deg, dec_deg, Fint, Maj) as VIII/92/first14.

    `body` (bytes), where set, is sent in place of every answer; so are the faults of `SurveyServer`.
    """

    path = "/"
    catalogue = "VIII/92/first14"

    def __init__(self, rows, port: int = 0, delay: float = 0.0):
        super().__init__(port, delay)
        self.rows = [_columns(*row) for row in rows]
        self.body: bytes | None = None

    def __enter__(self):
        super().__enter__()
        self._http.RequestHandlerClass = _AsuHandler
        return self

    @property
    def queries(self) -> list[dict[str, str]]:
        """What was asked so far, as keys and values."""
        return [params for _, _, params in self.requests]

    def answer(self, path: str, params: dict[str, str]) -> base.Reply:
        if path != "/viz-bin/votable":
            return base.page("Not found", 404)
        body = self.body if self.body is not None else self._votable(params).encode()
        return base.Reply(200, body, "text/xml")

    def _votable(self, params: dict[str, str]) -> str:
        asked = [name for key in ("-out", "-out.add") for name in params.get(key, "").split(",") if name]
        known = [name for name in asked if name in FIELDS]
        remarks = [f"Column '{name}' unknown in '{self.catalogue}'" for name in asked if name not in FIELDS]
        rows = [row for row in self.rows if _in_region(row, params) and _meets(row, params)]
        rows = rows[: int(params["-out.max"])] if params["-source"] == self.catalogue else []
        return _document(self.catalogue, known, rows, remarks)


class _AsuHandler(base._Handler):
    """Turns ASU's lines into the form that `SurveyServer` reads."""

    def _serve(self, form: bytes = b""):
        lines = [line.partition("=") for line in form.decode().splitlines()]
        super()._serve(urlencode([(key, value) for key, _, value in lines]).encode())


def _columns(name, ra, dec, flux, major):
    hours, degrees = _sexagesimal(ra / 15, 3), _sexagesimal(abs(dec), 2)
    sign = "-" if dec < 0 else "+"
    return dict(zip(FIELDS, (name, hours, sign + degrees, flux, major, ra, dec), strict=True))


def _sexagesimal(value: float, digits: int) -> str:
    units = round(value * 3600 * 10**digits)
    whole, seconds = divmod(units, 60 * 10**digits)
    return f"{whole // 60:02d} {whole % 60:02d} {seconds / 10**digits:0{digits + 3}.{digits}f}"


def _in_region(row, params) -> bool:
    ra, dec = map(float, re.fullmatch(r"([\d.]+)([+-][\d.]+)", params["-c"]).groups())
    east = ((row["_RAJ2000"] - ra + 180) % 360 - 180) * np.cos(np.radians(dec))
    north = row["_DEJ2000"] - dec
    if "-c.rd" in params:
        return np.hypot(east, north) <= float(params["-c.rd"])
    width, height = map(float, params["-c.bd"].split("x"))
    return abs(east) <= width / 2 and abs(north) <= height / 2


def _meets(row, params) -> bool:
    for name in FIELDS.keys() & params.keys():
        comparison, number = re.fullmatch(r"(>=|<=|>|<|=)?\s*([\d.]+)", params[name]).groups()
        if not COMPARISONS[comparison or "="](row[name], float(number)):
            return False
    return True


def _document(catalogue, names, rows, remarks) -> str:
    infos = "".join(f'<INFO name="Warning" value={quoteattr(remark)}/>\n' for remark in remarks)
    fields = "".join(f'<FIELD name="{name}" {FIELDS[name]}/>\n' for name in names)
    lines = ("".join(f"<TD>{_cell(row[name])}</TD>" for name in names) for row in rows)
    data = "".join(f"<TR>{line}</TR>\n" for line in lines)
    table = (
        f'<RESOURCE ID="yCat_8092" name="VIII/92"><TABLE name="{catalogue}">\n{fields}'
        f"<DATA><TABLEDATA>\n{data}</TABLEDATA></DATA></TABLE></RESOURCE>\n"
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">\n'
        f"{infos}{table if rows else ''}</VOTABLE>\n"
    )


def _cell(value) -> str:
    return "" if value is None else escape(str(value))
