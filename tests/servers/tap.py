"""A local TAP service that answers like NOIRLab's Astro Data Lab, from a small table `ls_dr9.tractor`.

Queries are evaluated by SQLite. As at Data Lab, the standard's geometric functions and Q3C's do not work, and
errors of a query come as VOTables with HTTP status 200.
"""

import math
import re
import sqlite3
from xml.sax.saxutils import escape

from tests.servers import base

DATATYPES = {
    "ls_id": 'datatype="long"',
    "ra": 'datatype="double" unit="deg"',
    "dec": 'datatype="double" unit="deg"',
    "type": 'datatype="char" arraysize="*"',
    "brick_primary": 'datatype="short"',
    "mag_g": 'datatype="float" unit="mag"',
    "mag_r": 'datatype="float" unit="mag"',
    "shape_r": 'datatype="float" unit="arcsec"',
}
FUNCTIONS = {"sin": math.sin, "cos": math.cos, "radians": math.radians}


class TapServer(base.SurveyServer):
    """`TapServer(rows)` serves rows of (ls_id, ra, dec, type, brick_primary, mag_g, mag_r, shape_r).

    `body` (bytes), where set, is sent in place of every answer; `hard_limit` is the service's own limit of rows;
    with `redirects` a query is answered by 303 and the address of the result.
    """

    path = "/tap"

    def __init__(self, rows, port: int = 0, delay: float = 0.0):
        super().__init__(port, delay)
        self.rows = list(rows)
        self.body: bytes | None = None
        self.status = 200
        self.hard_limit, self.redirects = 10**9, False
        self._results: list[bytes] = []

    @property
    def queries(self) -> list[dict[str, str]]:
        """What was asked so far, as keys and values."""
        return [params for method, _, params in self.requests if method == "POST"]

    def answer(self, path: str, params: dict[str, str]) -> base.Reply:
        run = re.fullmatch(r"/tap/sync/(\d+)/run", path)
        if run:
            return base.Reply(200, self._results[int(run[1])], "application/x-votable+xml")
        if path != "/tap/sync" or params.get("REQUEST") != "doQuery" or params.get("LANG") != "ADQL":
            return base.page("Not found", 404)
        body = self.body if self.body is not None else self._answer(params).encode()
        if not self.redirects:
            return base.Reply(self.status, body, "application/x-votable+xml")
        self._results.append(body)
        where = f"{self.url}/sync/{len(self._results) - 1}/run"
        return base.Reply(303, b"", headers=(("Location", where),))

    def _answer(self, params) -> str:
        try:
            names, rows = self._select(params["QUERY"])
        except sqlite3.Error as error:
            return error_document(str(error).replace("no such column", "Column is not found in TapSchema"))
        limit = min(int(params.get("MAXREC", self.hard_limit)), self.hard_limit)
        return document(names, rows[:limit], overflow=len(rows) > limit)

    def _select(self, adql: str):
        if "--" in adql or ";" in adql:
            raise sqlite3.OperationalError("Encountered a comment or a second statement")
        geometry = re.search(r"\b(contains|point|circle|box|polygon|q3c_\w+)\s*\(", adql, re.IGNORECASE)
        if geometry:
            raise sqlite3.OperationalError(f"function {geometry[1]}(numeric, numeric, numeric) does not exist")
        top = re.fullmatch(r"SELECT TOP (\d+) (.*)", adql)
        with sqlite3.connect(":memory:") as database:
            for name, function in FUNCTIONS.items():
                database.create_function(name, 1, function, deterministic=True)
            database.create_function("power", 2, math.pow, deterministic=True)
            database.execute("ATTACH ':memory:' AS ls_dr9")
            database.execute(f"CREATE TABLE ls_dr9.tractor ({', '.join(DATATYPES)})")
            marks = ", ".join("?" * len(DATATYPES))
            database.executemany(f"INSERT INTO ls_dr9.tractor VALUES ({marks})", self.rows)
            answer = database.execute(f"SELECT {top[2]} LIMIT {top[1]}")
            return [column[0] for column in answer.description], answer.fetchall()


def document(names, rows, overflow=False) -> str:
    """A whole answer, or one cut short at a limit."""
    fields = "".join(f'<FIELD name="{name}" {DATATYPES[name]}/>\n' for name in names)
    data = "".join(f"<TR>{''.join(f'<TD>{_cell(cell)}</TD>' for cell in row)}</TR>\n" for row in rows)
    end = '<INFO name="QUERY_STATUS" value="OVERFLOW"/>' if overflow else ""
    table = f"<TABLE>\n{fields}<DATA><TABLEDATA>\n{data}</TABLEDATA></DATA></TABLE>"
    return _votable(f'<INFO name="QUERY_STATUS" value="OK"/>\n{table}\n{end}')


def error_document(text: str) -> str:
    """What TAP says of a query that fails."""
    return _votable(f'<INFO name="QUERY_STATUS" value="ERROR">{escape(text)}</INFO>')


def _votable(content: str) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">\n'
        f'<RESOURCE type="results">\n{content}\n</RESOURCE>\n</VOTABLE>\n'
    )


def _cell(value) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf"
    return "" if value is None else escape(str(value))
