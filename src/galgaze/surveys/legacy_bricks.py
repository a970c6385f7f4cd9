"""Cutouts of the Legacy Surveys made here from whole bricks: for large fields the polite and the quicker way."""

import functools
import io
import re
import time
from pathlib import Path

import numpy as np
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits

from galgaze.config import LegacySurvey
from galgaze.errors import ConfigError, NoCoverage
from galgaze.surveys import lanczos
from galgaze.surveys.base import Source
from galgaze.surveys.brick_files import BrickFiles, Piece
from galgaze.surveys.bricks import (
    PIXEL_SCALE_ARCSEC,
    SIDE_PX,
    Brick,
    brick,
    brick_ids,
    brick_plane,
    bricks_touched,
    tangent_plane,
)
from galgaze.surveys.http import PoliteClient

LAYERS = re.compile(r"ls-dr(8|9|10)(?:-(north|south))?")
SPLIT_DEC_DEG = 32.375  # an edge between two rows of bricks
# Megabytes (10^6 bytes) of one file, about. Measured by others for DR10 south: image-r 11.9 (brick 0001m002) and 9.3
# (0489m442), invvar-r 11.3, maskbits 0.45 (0001m002); legacypipe's notes on its compression: image-g 10, invvar 10.
MEGABYTES = {"image": 11.0, "invvar": 11.0, "maskbits": 0.5}
FILES_A_PIECE = 2  # with its checksum
# Positions deep inside of each part
PROBES = {"south": (190.1086, 1.2005), "north": (210.0, 54.0)}
NEIGHBOUR_ARCSEC = 60.0  # images reach less far into their neighbours
NO_COVERAGE_DAYS = 90.0


def in_bricks(layer: str) -> bool:
    """Whether a layer of the viewer can be cut from bricks."""
    return LAYERS.fullmatch(layer) is not None


@functools.lru_cache(4096)
def tree(layer: str, of: Brick) -> str:
    """Release and part of the survey that the viewer's layer shows at a brick: ``dr9/south``.

    A layer without ``-north`` or ``-south`` is the north part from Dec 32.375 on in the northern galactic cap, else the
    south part. DR10 has no north part of its own: it is DR9's.

    Raises
    ------
    ConfigError
        If the layer is not in bricks.
    """
    found = LAYERS.fullmatch(layer)
    if found is None:
        raise ConfigError(
            f"The layer {layer!r} cannot be cut from bricks. Choose `layer` of the survey from ls-dr8, ls-dr9, ls-dr10 "
            "and their -north and -south, or set its `mode` to cutouts."
        )
    release, part = found.groups()
    part = part or ("north" if _is_north(of.ra_deg, of.dec_deg) else "south")
    return f"dr{9 if part == 'north' and release == '10' else release}/{part}"


def _is_north(ra_deg: float, dec_deg: float) -> bool:
    if dec_deg < SPLIT_DEC_DEG:
        return False
    return bool(SkyCoord(ra_deg, dec_deg, unit=units.deg).galactic.b > 0)


class BrickCutter:
    """Makes the viewer's FITS cutouts from brick images; threads may share it.

    As the viewer does, with one difference: where images of bricks overlap it takes their mean, we take the brick that
    the pixel belongs to.

    Parameters
    ----------
    settings : LegacySurvey
        Layer, bands, size, scale, invvar, maskbits, and `bricks_url`.
    client : PoliteClient
        Asks the archive.
    cache : path
        The files go to its folder ``bricks``; jobs and runs may share it.
    no_coverage_days : float
        How long to believe that the archive does not have a brick.
    clock : callable
        To be replaced in tests.

    Raises
    ------
    ConfigError
        If the layer is not in bricks.
    """

    def __init__(
        self,
        settings: LegacySurvey,
        client: PoliteClient,
        cache: str | Path,
        no_coverage_days: float = NO_COVERAGE_DAYS,
        clock=time.time,
    ):
        self.settings = settings
        tree(settings.layer, brick(1))  # refuses what it does not know
        folder = Path(cache) / "bricks"
        self._files = BrickFiles(client, settings.bricks_url, folder, self._probe, no_coverage_days, clock)
        self._halvings = lanczos.halvings(settings.pixel_scale_arcsec, PIXEL_SCALE_ARCSEC)

    def cut(self, source: Source) -> tuple[bytes, str]:
        """Make one cutout, fetching the bricks that are not here yet.

        Returns
        -------
        body : bytes
            FITS as the viewer's: a cube (bands, y, x), then INVVAR and MASKBITS if asked for. Not observed is 0.
        url : str
            Address of the brick that holds the source.

        Raises
        ------
        NoCoverage
            If no brick of the layer has data within the cutout.
        BadImage
            If a brick file cannot be used.
        TransientError, ServiceDown
            As `PoliteClient`.
        """
        settings = self.settings
        grid = _Grid(source, settings.size_px, settings.pixel_scale_arcsec)
        images, invvars = [], []
        for band in settings.bands:
            image, taken = self._mosaic(grid, np.float32, functools.partial(self._image, band))
            images.append(image)
            if settings.invvar:
                invvars.append(self._invvar(grid, band, taken))
        home = brick(int(brick_ids(source.ra_deg, source.dec_deg)))
        if not any(image.any() for image in images):
            raise NoCoverage(f"no brick of {settings.layer} has data here (around {home.name})")
        maskbits = self._mosaic(grid, np.int32, self._maskbits)[0] if settings.maskbits else None
        folder = Piece(tree(settings.layer, home), home, "image").folder
        return self._body(source, images, invvars, maskbits), f"{self._files.url}/{folder}"

    def cost(self, ra_deg: np.ndarray, dec_deg: np.ndarray) -> tuple[int, float, int]:
        """What cutouts at these positions (N,) take when nothing is cached.

        Returns
        -------
        requests : int
            One a file: image (and invvar) a band, and maskbits, of each brick that is touched.
        megabytes : float
            To download, about (`MEGABYTES`).
        files : int
            That the cache will hold.
        """
        settings = self.settings
        side_deg = settings.size_px * settings.pixel_scale_arcsec / 3600
        count = len(touched := bricks_touched(ra_deg, dec_deg, side_deg))
        pictures = count * len(settings.bands)
        if "i" in settings.bands:
            pictures -= sum("i" not in self._bands(brick(int(number))) for number in touched)
        kinds = {"image": pictures, "invvar": settings.invvar * pictures, "maskbits": settings.maskbits * count}
        requests = sum(kinds.values())
        return requests, sum(MEGABYTES[kind] * files for kind, files in kinds.items()), FILES_A_PIECE * requests

    def close(self) -> None:
        """Close the files."""
        self._files.close()

    def _probe(self, of: str) -> Piece:
        """The smallest file of a brick that a part of the survey surely has."""
        part = of.partition("/")[2]
        own = self.settings.probe_ra_deg, self.settings.probe_dec_deg
        ra, dec = own if _is_north(*own) == (part == "north") else PROBES[part]
        return Piece(of, brick(int(brick_ids(ra, dec))), "maskbits")

    def _bands(self, of: Brick) -> str:
        """Those asked for that the part of the survey has: there is no i band in the north."""
        north = tree(self.settings.layer, of).endswith("north")
        return self.settings.bands.replace("i", "") if north else self.settings.bands

    def _mosaic(self, grid: "_Grid", kind, look) -> tuple[np.ndarray, np.ndarray]:
        """Values (N,) from each pixel's own brick, or from another whose image reaches there and has data.

        Also gives the number of the brick that each came from, 0 where none has data. ``look(brick, columns, rows)``
        gives values there, and whether they are data; or None.
        """
        values, taken = np.zeros(len(grid.owners), kind), np.zeros(len(grid.owners), int)

        def fill(number: int, where: np.ndarray) -> None:
            columns, rows = (axis[where] for axis in grid.on(number))
            inside = (abs(columns - (SIDE_PX - 1) / 2) < SIDE_PX / 2) & (abs(rows - (SIDE_PX - 1) / 2) < SIDE_PX / 2)
            if inside.any() and (found := look(brick(number), columns[inside], rows[inside])) is not None:
                here = where[inside][found[1]]
                values[here], taken[here] = found[0][found[1]], number

        for number in grid.bricks:
            fill(number, np.flatnonzero(grid.owners == number))
        for number in grid.neighbours(np.flatnonzero(taken == 0)):
            fill(number, np.flatnonzero((taken == 0) & (grid.owners != number)))
        return values, taken

    def _piece(self, of: Brick, kind: str, band: str = "") -> Piece:
        return Piece(tree(self.settings.layer, of), of, kind, band)

    def _image(self, band: str, of: Brick, columns: np.ndarray, rows: np.ndarray):
        if band not in self._bands(of):
            return None
        found = self._section(self._piece(of, "image", band), columns, rows)
        if found is None:
            return None
        pixels, columns, rows = found
        pixels = np.nan_to_num(pixels.astype(np.float32), posinf=0, neginf=0)
        observed = pixels != 0
        for _ in range(self._halvings):
            pixels, observed = lanczos.halve(pixels), lanczos.mean_of_four(observed)
            columns, rows = (columns - 0.5) / 2, (rows - 0.5) / 2
        values = lanczos.lanczos3(pixels, columns, rows)
        return values, (_at(observed, columns, rows) > 0.5) & (values != 0)

    def _maskbits(self, of: Brick, columns: np.ndarray, rows: np.ndarray):
        found = self._section(self._piece(of, "maskbits"), columns, rows)
        return None if found is None else (_at(*found), np.ones(len(columns), bool))

    def _invvar(self, grid: "_Grid", band: str, taken: np.ndarray) -> np.ndarray:
        """From the bricks that the image came from."""
        values = np.zeros(len(taken), np.float32)
        for number in np.unique(taken[taken > 0]):
            here = taken == number
            columns, rows = (axis[here] for axis in grid.on(int(number)))
            found = self._section(self._piece(brick(int(number)), "invvar", band), columns, rows)
            if found is not None:
                values[here] = np.nan_to_num(_at(*found))
        return values

    def _section(self, piece: Piece, columns: np.ndarray, rows: np.ndarray):
        """The part of an image around these positions, and where they stand in it; None if there is no image."""
        block = 2**self._halvings
        margin = 8 * block  # Lanczos reaches 3 px of the halved image, smoothing 4 px of each one before it
        starts, slices = [], []
        for positions in (rows, columns):
            start = max(0, int(positions.min()) - margin) // block * block
            stop = min(SIDE_PX, -(-(int(positions.max()) + 1 + margin) // block) * block)
            starts.append(start)
            slices.append(slice(start, stop))
        pixels = self._files.read(piece, *slices)
        return None if pixels is None else (pixels, columns - starts[1], rows - starts[0])

    def _body(self, source: Source, images: list, invvars: list, maskbits: np.ndarray | None) -> bytes:
        size = self.settings.size_px
        hdus = fits.HDUList([self._hdu(fits.PrimaryHDU, source, np.reshape(images, (-1, size, size)), "image")])
        if invvars:
            hdus.append(self._hdu(fits.ImageHDU, source, np.reshape(invvars, (-1, size, size)), "INVVAR"))
        if maskbits is not None:
            hdus.append(self._hdu(fits.ImageHDU, source, maskbits.reshape(size, size), "MASKBITS"))
        stream = io.BytesIO()
        hdus.writeto(stream)
        return stream.getvalue()

    def _hdu(self, kind, source: Source, pixels: np.ndarray, image_type: str):
        settings = self.settings
        middle, step = (settings.size_px + 1) / 2, settings.pixel_scale_arcsec / 3600
        hdu = kind(pixels)
        hdu.header.update(
            {"SURVEY": "LegacySurvey", "VERSION": settings.layer.split("-")[1].upper(), "IMAGETYP": image_type}
            | {"BANDS": settings.bands}
            | {f"BAND{number}": band for number, band in enumerate(settings.bands)}
            | {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": source.ra_deg % 360, "CRVAL2": source.dec_deg}
            | {"CRPIX1": middle, "CRPIX2": middle, "CD1_1": -step, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": step}
            | {"IMAGEW": float(settings.size_px), "IMAGEH": float(settings.size_px)}
        )
        return hdu


class _Grid:
    """The pixels of one cutout, row by row, and the bricks that they belong to."""

    def __init__(self, source: Source, size_px: int, pixel_scale_arcsec: float):
        self._plane = tangent_plane(source.ra_deg % 360, source.dec_deg, size_px, pixel_scale_arcsec)
        self._scale = pixel_scale_arcsec
        rows, columns = np.indices((size_px, size_px))
        self._columns, self._rows = columns.ravel(), rows.ravel()
        self._sky = self._plane.wcs_pix2world(self._columns, self._rows, 0)
        self.owners = brick_ids(*self._sky)
        self.bricks = [int(number) for number in np.unique(self.owners)]
        self._on: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def on(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Columns and rows (N,) of the pixels on a brick's image, 0-based."""
        if number not in self._on:
            self._on[number] = tuple(brick_plane(brick(number)).wcs_world2pix(*self._sky, 0))
        return self._on[number]

    def neighbours(self, where: np.ndarray) -> list[int]:
        """Bricks whose images may reach these pixels, from the lowest number on."""
        found = [np.zeros(0, int)]
        step = NEIGHBOUR_ARCSEC / self._scale
        for across in (-step, 0, step):
            for along in (-step, 0, step):
                sky = self._plane.wcs_pix2world(self._columns[where] + across, self._rows[where] + along, 0)
                found.append(np.unique(brick_ids(*sky)))
        return [int(number) for number in np.unique(np.concatenate(found))]


def _at(pixels: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The nearest pixels."""
    height, width = pixels.shape
    return pixels[np.clip(lanczos.nearest(rows), 0, height - 1), np.clip(lanczos.nearest(columns), 0, width - 1)]
