"""Where a survey has data, so that sources outside of it are not asked for.

A footprint only saves requests, and a source that it leaves out by mistake is lost; so everything is read generously:

* **MOC** (IVOA Multi-Order Coverage map 2.0; FITS, JSON, ASCII): positions in its cells and in the cells that touch
  them count. The cells are those of the MOC's finest order, but not finer than order 11 (1.7 arcmin), to which finer
  MOCs are degraded; a coarse cell counts if any part of it did. So a source on the survey's ragged edge is asked for,
  whether the cells of the MOC are those inside of the footprint or those that overlap it.
* **Table of bricks** (FITS, such as survey-bricks-dr9-south.fits.gz of the Legacy Surveys): positions in a brick count,
  its edges included. Where there are numbers of exposures (nexp_g, nexp_r, nexp_z), all must be above 0. They are
  medians: a brick with exposures over less than half of it says 0. So the bricks of the table that touch one with
  exposures count as well.
"""

import abc
import gzip
import hashlib
import io
import json
import warnings
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import astropy.units as u
import numpy as np
from astropy.io import fits
from mocpy import MOC

from galgaze.errors import BadImage, ConfigError, TransientError
from galgaze.surveys.cache import make_folder
from galgaze.surveys.fits_images import in_short
from galgaze.surveys.http import PoliteClient

FINEST_ORDER = 11
EDGE_DEG = 1e-6  # edges of neighbours are the same number but for rounding
BOUNDS = ("ra1", "ra2", "dec1", "dec2")
EXPOSURES = ("nexp_g", "nexp_r", "nexp_z")
WHAT_TO_DO = (
    "Expected is a MOC (FITS, JSON or ASCII) or a FITS table of bricks with the columns ra1, ra2, dec1, dec2. Correct "
    "`footprint` of the survey, or leave it out: then the service is asked for every source."
)


class Footprint(abc.ABC):
    """A region of the sky."""

    @abc.abstractmethod
    def covers(self, ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
        """Whether each position, (N,) degrees, may have data: (N,) bool. No positions are fine."""


def load_footprint(where: str, client: PoliteClient, cache: str | Path) -> Footprint:
    """Read a footprint from a file or an address.

    Parameters
    ----------
    where : str
        A file, or an address (http, https): downloaded once, and kept under the cache. Remove it there to have it
        downloaded anew.
    client : PoliteClient
        For the download.
    cache : path
        The footprint goes to ``footprints/<hash of the address>`` below it, after it has been read without error.

    Raises
    ------
    ConfigError
        If there is no such file, or it is no footprint, empty or damaged.
    TransientError
        If the address does not answer.
    """
    if urlsplit(where).scheme in ("http", "https"):
        return _downloaded(where, client, Path(cache) / "footprints" / hashlib.sha256(where.encode()).hexdigest())
    try:
        return _parse(Path(where).expanduser().read_bytes())
    except OSError as error:
        raise ConfigError(f"footprint: the file {where} cannot be read: {in_short(error)}. {WHAT_TO_DO}") from error
    except _UnusableError as error:
        raise ConfigError(f"footprint: {where} {error}. {WHAT_TO_DO}") from error


def _downloaded(url: str, client: PoliteClient, kept: Path) -> Footprint:
    try:
        return _parse(kept.read_bytes())
    except FileNotFoundError:
        pass
    except _UnusableError:
        kept.unlink(missing_ok=True)  # it was good once: decayed
    found = []

    def check(path: Path) -> None:
        try:
            found.append(_parse(path.read_bytes()))
        except _UnusableError as error:
            raise BadImage(str(error)) from error  # so that it is asked for again: a body may be cut short

    try:
        make_folder(kept.parent, kept.parent.parent)
        answer = client.download(url, kept, check)
    except BadImage as error:
        raise ConfigError(f"footprint: what came from {url} {error}. {WHAT_TO_DO}") from error
    if answer.status_code >= 500:
        raise TransientError(f"footprint: HTTP {answer.status_code} from {url}. Run again later to resume.")
    if answer.status_code != 200:
        raise ConfigError(f"footprint: HTTP {answer.status_code} from {url}. {WHAT_TO_DO}")
    return found[-1]


class _UnusableError(Exception):
    """The sentence goes on after the file's name."""


def _parse(body: bytes) -> Footprint:
    """A footprint of whatever kind."""
    if body.startswith(b"\x1f\x8b"):
        try:
            body = gzip.decompress(body)
        except (OSError, EOFError, zlib.error) as error:
            raise _UnusableError(f"is damaged: {in_short(error)}") from error
    if not body.strip():
        raise _UnusableError("is empty")
    try:
        return _parse_fits(body) if body.startswith(b"SIMPLE") else MocFootprint(_text_moc(body))
    except _UnusableError:
        raise
    except Exception as error:  # astropy and mocpy raise many kinds; every one means an unusable file
        raise _UnusableError(f"is no footprint, or damaged: {in_short(error)}") from error


def _parse_fits(body: bytes) -> Footprint:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of truncation: it is an error here
        with fits.open(io.BytesIO(body), memmap=False) as hdus:
            tables = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU)]
            for table in tables:
                end = table.fileinfo()["datLoc"] + table.size
                if end > len(body):  # mocpy would read a part without a word
                    raise _UnusableError(f"is truncated: {len(body)} bytes of {end}")
                names = {name.lower() for name in table.columns.names}
                if names.issuperset(BOUNDS):
                    return _bricks(table, names)
                if table.header.get("ORDERING", "").strip() in ("NUNIQ", "RANGE"):
                    return _fits_moc(body, table)
            columns = [name for table in tables for name in table.columns.names]
    raise _UnusableError(f"holds neither a MOC nor bricks (columns: {', '.join(columns[:12]) or 'none'})")


# ---- cells


class MocFootprint(Footprint):
    """Cells of a MOC, and those that touch them; see the module's rule.

    Parameters
    ----------
    moc : mocpy.MOC
        Not empty.
    """

    def __init__(self, moc: MOC):
        if moc.empty():
            raise _UnusableError("is an empty MOC")
        coarse = moc.degrade_to_order(FINEST_ORDER) if moc.max_order > FINEST_ORDER else moc
        self._moc = coarse.extended()

    def covers(self, ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
        """See `Footprint.covers`."""
        ra, dec = np.asarray(ra_deg, float) % 360, np.asarray(dec_deg, float)
        return np.asarray(self._moc.contains_lonlat(ra * u.deg, dec * u.deg), bool)


def _fits_moc(body: bytes, table: fits.BinTableHDU) -> Footprint:
    header = table.header
    frame, dimension = (str(header.get(*card)).strip() for card in (("COORDSYS", "C"), ("MOCDIM", "SPACE")))
    if dimension != "SPACE":
        raise _UnusableError(f"is a MOC of {dimension}, not of the sky alone")
    if frame not in ("C", "ICRS"):
        raise _UnusableError(f"is a MOC in other coordinates than ICRS (COORDSYS = {frame!r})")
    order = header.get("MOCORD_S", header.get("MOCORDER"))
    cells = np.ravel(table.data.field(0))
    # mocpy checks no numbers, and panics at some of them
    if header["ORDERING"].strip() == "RANGE":
        aligned = not (cells % 4 ** (29 - order)).any()
        sane = len(cells) % 2 == 0 and (np.diff(cells) >= 0).all() and ((cells >= 0) & (cells <= 12 * 4**29)).all()
    else:
        aligned = sane = ((cells >= 4) & (cells < 4 ** (order + 2))).all()
    if not sane or not aligned:
        raise _UnusableError("is a damaged MOC: not all its cells exist")
    return MocFootprint(MOC.from_fits(io.BytesIO(body)))


def _text_moc(body: bytes) -> MOC:
    text = body.decode("utf-8").strip()
    if not text.startswith("{"):
        return MOC.from_string(text, format="ascii")
    for order, cells in json.loads(text).items():  # mocpy leaves out what it does not know, and checks no numbers
        if not order.isdecimal() or int(order) > 29 or not isinstance(cells, list):
            raise _UnusableError(f"is no MOC: {order[:20]!r} is not an order with its cells")
        if not all(isinstance(cell, int) and 0 <= cell < 12 * 4 ** int(order) for cell in cells):
            raise _UnusableError(f"is no MOC: not all its cells of order {order} exist")
    return MOC.from_string(text, format="json")


# ---- bricks


class BrickFootprint(Footprint):
    """Rectangles in RA and Dec, edges included.

    Parameters
    ----------
    ra1, ra2, dec1, dec2 : numpy.ndarray
        (M,) degrees, western and eastern, southern and northern edges. ra2 below ra1: over RA 0. Bricks in rows of
        Dec, as the Legacy Surveys' are, make it quick.
    """

    def __init__(self, ra1: np.ndarray, ra2: np.ndarray, dec1: np.ndarray, dec2: np.ndarray):
        width = np.where((ra2 != ra1) & ((ra2 - ra1) % 360 == 0), 360.0, (ra2 - ra1) % 360) + 2 * EDGE_DEG
        rows, row = np.unique(np.stack([dec1, dec2], axis=1), axis=0, return_inverse=True)
        order = np.argsort(row, kind="stable")
        self._west, self._width = ((ra1 - EDGE_DEG) % 360)[order], width[order]
        self._first = np.searchsorted(row[order], np.arange(len(rows) + 1))  # brick of each row
        self._south, self._north = rows[:, 0] - EDGE_DEG, rows[:, 1] + EDGE_DEG

    def covers(self, ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
        """See `Footprint.covers`."""
        ra, dec = np.asarray(ra_deg, float) % 360, np.asarray(dec_deg, float)
        covered = np.zeros(len(ra), bool)
        # at a pole RA means nothing
        covered[dec >= 90] = (self._north >= 90).any()
        covered[dec <= -90] = (self._south <= -90).any()
        from_south = np.argsort(dec)
        first = np.searchsorted(dec[from_south], self._south, side="left")
        last = np.searchsorted(dec[from_south], self._north, side="right")
        for row in np.flatnonzero(last > first):
            here = from_south[first[row] : last[row]]
            covered[here] |= self._in_row(row, ra[here])
        return covered

    def _in_row(self, row: int, ra: np.ndarray) -> np.ndarray:
        """Whether an interval of the row holds each RA: the furthest end of those that begin before it tells."""
        bricks = slice(self._first[row], self._first[row + 1])
        west = self._west[bricks]
        east = west + self._width[bricks]
        over = east >= 360
        west, east = np.concatenate([west, west[over] - 360]), np.concatenate([east, east[over] - 360])
        order = np.argsort(west)
        furthest = np.concatenate([[-np.inf], np.maximum.accumulate(east[order])])
        return furthest[np.searchsorted(west[order], ra, side="right")] >= ra


def _bricks(table: fits.BinTableHDU, names: set[str]) -> Footprint:
    edges = [np.asarray(table.data[name], float) for name in BOUNDS]
    dec1, dec2 = edges[2:]
    if len(dec1) == 0:
        raise _UnusableError("is a table of no bricks")
    wrong = ~(np.isfinite(edges).all(axis=0) & (dec1 < dec2) & (dec1 >= -90) & (dec2 <= 90))
    if wrong.any():
        raise _UnusableError(f"has bricks without sense, the first in row {np.flatnonzero(wrong)[0] + 1}")
    exposed = np.ones(len(dec1), bool)
    for name in names.intersection(EXPOSURES):
        exposed &= np.asarray(table.data[name]) > 0
    if not exposed.any():
        raise _UnusableError("is a table of bricks without exposures in all bands")
    core = BrickFootprint(*(edge[exposed] for edge in edges))
    counts = exposed | _touches(core, *edges)
    return BrickFootprint(*(edge[counts] for edge in edges))


def _touches(core: BrickFootprint, ra1, ra2, dec1, dec2) -> np.ndarray:
    """Which bricks have a corner, or the middle of a side, on another footprint: (M,) bool."""
    middle_ra, middle_dec = ra1 + (ra2 - ra1) % 360 / 2, (dec1 + dec2) / 2
    touches = np.zeros(len(ra1), bool)
    for ra in (ra1, middle_ra, ra2):
        for dec in (dec1, middle_dec, dec2):
            touches |= core.covers(ra, dec)
    return touches
