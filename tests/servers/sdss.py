"""A local SkyServer that answers SQL over small tables of photometry and spectra, in CSV.

Queries are evaluated by SQLite after fGetNearbyObjEq is written out. As at SkyServer, unknown values are -9999,
errors are web pages with HTTP status 200, and rows beyond the server's own limit are left out without a word.
"""

import math
import re
import sqlite3

from tests.servers import base

PHOTO = ("objID", "ra", "dec", "mode", "type", "petroMag_g", "petroMag_r", "petroRad_r", "specObjID")
SPEC = ("specObjID", "z", "zWarning")
NEARBY = re.compile(r"dbo\.fGetNearbyObjEq\(([-\d.]+), ([-\d.]+), ([-\d.]+)\)")


class SdssServer(base.SurveyServer):
    """`SdssServer(photo, spec)` serves rows of `PHOTO` and of `SPEC`.

    `body` (bytes), where set, is sent in place of every answer, with `status`; `hard_limit` is the server's own
    limit of rows.
    """

    path = ""

    def __init__(self, photo, spec=(), port: int = 0, delay: float = 0.0):
        super().__init__(port, delay)
        self.photo, self.spec = list(photo), list(spec)
        self.body: bytes | None = None
        self.status = 200
        self.hard_limit = 500_000

    @property
    def queries(self) -> list[str]:
        """The SQL asked so far."""
        return [params["cmd"].strip() for _, _, params in self.requests]

    def answer(self, path: str, params: dict[str, str]) -> base.Reply:
        if not re.fullmatch(r"/dr\d+/en/tools/search/x_results\.aspx", path) or params.get("format") != "csv":
            return base.page("Not found", 404)
        if self.body is not None:
            return base.Reply(self.status, self.body, "text/plain")
        try:
            names, rows = self._select(params["cmd"].strip())
        except sqlite3.Error as error:
            return error_page(str(error).replace("no such column:", "Invalid column name"))
        lines = [",".join(names), *(",".join(map(_cell, row)) for row in rows[: self.hard_limit])]
        return base.Reply(200, ("#Table1\n" + "\n".join(lines) + "\n").encode(), "text/plain")

    def _select(self, sql: str):
        if "--" in sql or ";" in sql:
            raise sqlite3.OperationalError("Incorrect syntax near a comment or a second statement")
        top = re.fullmatch(r"SELECT TOP (\d+) (.*)", sql)
        near = "(SELECT objID FROM PhotoObjAll WHERE mode = 1 AND arcmin(ra, dec, {}, {}) < {})"
        body = NEARBY.sub(lambda found: near.format(*found.groups()), top[2])
        with sqlite3.connect(":memory:") as database:
            database.create_function("arcmin", 4, _arcmin, deterministic=True)
            for name, columns, rows in (("PhotoObjAll", PHOTO, self.photo), ("SpecObj", SPEC, self.spec)):
                database.execute(f"CREATE TABLE {name} ({', '.join(columns)})")
                database.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(columns))})", rows)
            database.execute("CREATE VIEW Galaxy AS SELECT * FROM PhotoObjAll WHERE mode = 1 AND type = 3")
            database.execute("CREATE VIEW PhotoObj AS SELECT * FROM PhotoObjAll WHERE mode IN (1, 2)")
            answer = database.execute(f"SELECT {body} LIMIT {top[1]}")
            return [column[0] for column in answer.description], answer.fetchall()


def error_page(text: str) -> base.Reply:
    """What SkyServer says of a query that fails."""
    return base.Reply(
        200,
        (
            "<html><head>\n<title>Skyserver Error</title>\n</head><body bgcolor=white>\n<h2>An error occured</h2>"
            f"<H3 BGCOLOR=pink><font color=red>{text}<br></font></H3></BODY></HTML>\n"
        ).encode(),
    )


def _arcmin(ra, dec, other_ra, other_dec) -> float:
    ra, dec, other_ra, other_dec = map(math.radians, (ra, dec, other_ra, other_dec))
    one = (math.cos(dec) * math.cos(ra), math.cos(dec) * math.sin(ra), math.sin(dec))
    other = (math.cos(other_dec) * math.cos(other_ra), math.cos(other_dec) * math.sin(other_ra), math.sin(other_dec))
    return math.degrees(2 * math.asin(min(1.0, math.dist(one, other) / 2))) * 60


def _cell(value) -> str:
    return "null" if value is None else repr(value) if isinstance(value, float) else str(value)
