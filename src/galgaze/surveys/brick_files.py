"""Brick images: fetched once, kept whole, and read in sections.

Below the folder they stand as in the archive. Beside each file stands its SHA-256 (``.sha256``, as ``sha256sum`` writes
it), put there before the file, so that where a file stands it can be verified. What the archive does not have leaves a
tombstone (``.absent``, JSON with the date), so that it is not asked for again for a while. Jobs and threads that share
the folder keep out of each other's way with file locks.
"""

import collections
import contextlib
import json
import threading
import time
import warnings
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from filelock import FileLock

from galgaze.errors import BadImage, TransientError
from galgaze.files import sha256_file, write_bytes, write_json
from galgaze.surveys.bricks import PIXEL_SCALE_ARCSEC, SIDE_PX, Brick
from galgaze.surveys.cache import make_folder
from galgaze.surveys.fits_images import BLOCK, in_short
from galgaze.surveys.http import PoliteClient

OPEN_FILES = 8
CHECKSUM, ABSENT = ".sha256", ".absent"  # beside a file: its checksum; in its place: that the archive has none
LOCKS = 64  # files; which one a brick file has is chance, so that the folder does not fill with locks
DAY_S = 86_400.0
TOLERANCE_PX = 0.5


class Piece(NamedTuple):
    """One file of one brick.

    Attributes
    ----------
    tree : str
        Release and part of the survey, ``dr9/south``.
    brick : Brick
        Which.
    kind : str
        ``image``, ``invvar`` or ``maskbits``.
    band : str
        One letter; empty for ``maskbits``, which serves all bands.
    """

    tree: str
    brick: Brick
    kind: str
    band: str = ""

    @property
    def folder(self) -> str:
        """Of the brick, in the archive and below ours."""
        return f"{self.tree}/coadd/{self.brick.name[:3]}/{self.brick.name}"

    @property
    def name(self) -> str:
        """Of the file."""
        band = f"-{self.band}" if self.band else ""
        return f"legacysurvey-{self.brick.name}-{self.kind}{band}.fits.fz"


class BrickFiles:
    """The archive's files, through a folder; threads may share it.

    Parameters
    ----------
    client : PoliteClient
        Asks the archive.
    url : str
        Address above ``dr9/south``.
    folder : path
        Where they are kept; jobs may share it.
    probes : callable
        For a tree, a piece that the archive surely has: a whole archive that is gone must not read as 'not observed'.
    no_coverage_days : float
        How long to believe that the archive does not have a file.
    clock : callable
        To be replaced in tests.
    """

    def __init__(
        self, client: PoliteClient, url: str, folder: str | Path, probes, no_coverage_days: float, clock=time.time
    ):
        self.url, self.folder = url.rstrip("/"), Path(folder)
        self._client, self._probes = client, probes
        self._no_coverage_s, self._clock = no_coverage_days * DAY_S, clock
        self._known: dict[Piece, Path | BadImage | None] = {}
        self._probed: set[str] = set()
        self._probing = threading.Lock()
        self._open = _OpenImages()

    def read(self, piece: Piece, rows: slice, columns: slice) -> np.ndarray | None:
        """Pixels of a section, in the file's own type.

        Parameters
        ----------
        piece : Piece
            Fetched first, if it is not here yet.
        rows, columns : slice
            Within the image.

        Returns
        -------
        numpy.ndarray or None
            None where the archive has no such file: not observed.

        Raises
        ------
        BadImage
            If the archive's file cannot be used; it is not asked for again by this process.
        TransientError, ServiceDown
            As `PoliteClient`, and where the whole tree is gone.
        """
        path = self.path(piece)
        if path is not None and not path.exists():  # taken away by hand, or by a job that found it damaged
            self._known.pop(piece, None)
            path = self.path(piece)
        if path is None:
            return None
        try:
            return self._open.read(path, rows, columns)
        except BadImage:
            _checksum(path).unlink(missing_ok=True)  # then the next process fetches it anew
            raise

    def path(self, piece: Piece) -> Path | None:
        """Where a verified file stands, fetched if need be; None where the archive has none. Raises as `read`."""
        with contextlib.suppress(KeyError):
            return _result(self._known[piece])
        target = self.folder / piece.folder / piece.name
        with self._lock(target):
            with contextlib.suppress(KeyError):  # another thread has been quicker
                return _result(self._known[piece])
            try:
                found = self._get(piece, target)
            except BadImage as error:
                found = error  # the brick holds many sources, and none of them shall ask for these megabytes again
            self._known[piece] = found
        return _result(found)

    def close(self) -> None:
        """Close the files."""
        self._open.close()

    def _lock(self, target: Path) -> FileLock:
        folder = self.folder / "locks"
        make_folder(folder, self.folder.parent)
        number = zlib.crc32(target.name.encode()) % LOCKS
        return FileLock(folder / f"{number}.lock", mode=0o666, thread_local=False)

    def _get(self, piece: Piece, target: Path) -> Path | None:
        make_folder(target.parent, self.folder.parent)
        if target.exists():
            if _holds(target):
                return target
            target.unlink()
        if self._is_absent(_tombstone(target)):
            return None
        for left_by_a_kill in target.parent.glob(f".{target.name}.*.partial"):
            left_by_a_kill.unlink(missing_ok=True)
        url = f"{self.url}/{piece.folder}/{piece.name}"
        answer = self._client.download(url, target, check=lambda path: _accept(path, piece, target))
        if answer.status_code == 200:
            _tombstone(target).unlink(missing_ok=True)
            return target
        if answer.status_code != 404:
            raise TransientError(f"HTTP {answer.status_code} from {url}. Run again later to resume.")
        self._check_alive(piece.tree)
        asked = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="seconds")
        write_json(_tombstone(target), {"url": url, "status": 404, "asked": asked})
        return None

    def _is_absent(self, tombstone: Path) -> bool:
        """Whether the archive was asked not long ago, and had nothing."""
        try:
            asked = datetime.fromisoformat(json.loads(tombstone.read_text())["asked"]).timestamp()
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return 0 <= self._clock() - asked < self._no_coverage_s

    def _check_alive(self, tree: str) -> None:
        """At the first "not found" of a tree: see whether it has anything at all."""
        with self._probing:
            if tree in self._probed:
                return
            piece = self._probes(tree)
            url = f"{self.url}/{piece.folder}/{piece.name}"
            answer = self._client.request("GET", url)
            if answer.status_code != 200 or not answer.content.startswith(b"SIMPLE"):
                raise TransientError(
                    f"{url}: HTTP {answer.status_code}, although this brick is surely covered. If `bricks_url` of the "
                    "survey is right, the archive is down: run again later to resume."
                )
            self._probed.add(tree)


def _result(known: Path | BadImage | None) -> Path | None:
    if isinstance(known, BadImage):
        raise BadImage(known.reason)
    return known


def _tombstone(target: Path) -> Path:
    return target.with_name(target.name + ABSENT)


def _checksum(target: Path) -> Path:
    return target.with_name(target.name + CHECKSUM)


def _holds(target: Path) -> bool:
    """Whether a file is still what was accepted."""
    try:
        return _checksum(target).read_text().split()[:1] == [sha256_file(target)]
    except OSError:
        return False


def _accept(path: Path, piece: Piece, target: Path) -> None:
    """Check a download before it takes its name, and note its checksum. Raises `BadImage`."""
    try:
        check_brick_file(path, piece)
    except BadImage as error:
        raise BadImage(f"{piece.name}: {error.reason}") from error
    write_bytes(_checksum(target), f"{sha256_file(path)}  {target.name}\n".encode())


def check_brick_file(path: Path, piece: Piece) -> None:
    """Refuse a file that is not whole, or not of this brick, kind and band.

    Raises
    ------
    BadImage
        Saying what came and what was asked for.
    """
    with open(path, "rb") as file:
        start = file.read(60)
    if not start.startswith(b"SIMPLE  ="):
        raise BadImage(f"not a FITS file, it starts with: {' '.join(start.decode('latin-1').split())!r}")
    try:
        header, end = _image_header(path)
    except Exception as error:  # astropy raises many kinds; every one means an unusable file
        raise BadImage(f"unreadable FITS: {in_short(error)}") from error
    if path.stat().st_size < end or end % BLOCK:
        raise BadImage(f"truncated: {path.stat().st_size} bytes of the {end} that the headers announce")
    shape = (header.get("ZNAXIS2"), header.get("ZNAXIS1"))
    if shape != (SIDE_PX, SIDE_PX):
        raise BadImage(f"a compressed image of {shape} pixels came, {(SIDE_PX, SIDE_PX)} were expected")
    _check_plane(header, piece.brick)
    expected = {"BRICK": piece.brick.name}
    if piece.band:  # how maskbits are marked differs between releases
        expected |= {"IMTYPE": piece.kind, "FILTERX": piece.band}
    for card, value in expected.items():
        if (found := str(header.get(card, value)).strip()) != value:
            raise BadImage(f"{card} {found!r} came, {value!r} was asked for")


def _image_header(path: Path) -> tuple[fits.Header, int]:
    """Header of the first extension as stored, and the bytes that all headers together announce."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy warns of truncation, and goes on
        with fits.open(path, disable_image_compression=True) as hdus:
            if len(hdus) < 2:
                raise ValueError("no extension")
            last = hdus[-1].fileinfo()
            return hdus[1].header, last["datLoc"] + last["datSpan"]


def _check_plane(header: fits.Header, brick: Brick) -> None:
    """The coordinates of the image follow from the brick; the file must say the same."""
    step = PIXEL_SCALE_ARCSEC / 3600
    expected = {
        "CRPIX1": (SIDE_PX + 1) / 2, "CRPIX2": (SIDE_PX + 1) / 2, "CRVAL1": brick.ra_deg, "CRVAL2": brick.dec_deg,
        "CD1_1": -step, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": step,
    }  # fmt: skip
    # half a pixel at most, from one end of the image to the other
    units = {"CRP": 1.0, "CRV": step, "CD1": step / SIDE_PX, "CD2": step / SIDE_PX}
    for card, value in expected.items():
        found = header.get(card)
        if not isinstance(found, int | float) or abs(found - value) > units[card[:3]] * TOLERANCE_PX:
            raise BadImage(f"{card} = {found} came, {value:.8g} was expected of brick {brick.name}")


class _OpenImages:
    """The files read last stay open; one section is read at a time."""

    def __init__(self):
        self._files: collections.OrderedDict[Path, fits.HDUList] = collections.OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Path, rows: slice, columns: slice) -> np.ndarray:
        with self._lock:
            if path not in self._files:
                self._files[path] = fits.open(path, memmap=False, lazy_load_hdus=True)
            self._files.move_to_end(path)
            while len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)[1].close()
            try:
                return self._files[path][1].section[rows, columns]
            except Exception as error:  # a decompressor has as many kinds as astropy
                raise BadImage(f"{path.name} cannot be decompressed: {in_short(error)}") from error

    def close(self) -> None:
        with self._lock:
            while self._files:
                self._files.popitem()[1].close()
