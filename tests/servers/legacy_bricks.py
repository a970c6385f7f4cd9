"""A local archive of Legacy Surveys coadd bricks, made from a simulated sky when they are asked for.

Files are as the real ones: fpacked (Rice, tiles of 100 x 100, SUBTRACTIVE_DITHER_2, steps of 1e-4; HCOMPRESS for
maskbits, with WISE's mask as a second extension), 3600 x 3600 px of 0.262 arcsec, TAN about the brick's centre, an
empty primary HDU, cards as in DR10's 0489m442. What was not observed is not there (404), or 0 in image and invvar.
"""

import functools
import io
import math
import re
from dataclasses import dataclass, field

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from tests.servers.base import Reply, SurveyServer, page

FILE = re.compile(
    r"/legacysurvey/(?P<tree>dr\d+/(?:north|south))/coadd/(?P<start>...)/(?P<name>\d{4}[pm]\d{3})/"
    r"legacysurvey-(?P=name)-(?:(?P<kind>image|invvar)-(?P<band>[griz])|(?P<mask>maskbits))\.fits\.fz"
)
SIDE = 3600
STEP = 0.262 / 3600
SKY = 0.002
INVVAR = 62500.0
AS_STORED = {"disable_image_compression": True}


class Brick:
    """Bounds and centre by name; an index row by row, from the definition of the tiling."""

    def __init__(self, name: str):
        self.name = name
        self.dec = math.copysign(round(int(name[5:]) / 2.5) / 4, 1 if name[4] == "p" else -1)
        self.row = round((self.dec + 90) / 0.25)
        columns = columns_in_row(self.row)
        numbers = [n for n in range(columns) if f"{round((n + 0.5) * 360 / columns * 1e4):07d}"[:4] == name[:4]]
        if len(numbers) != 1:
            raise LookupError(name)
        self.ra1, self.ra2 = (360 * number / columns for number in (numbers[0], numbers[0] + 1))
        self.ra = (self.ra1 + self.ra2) / 2
        self.dec1, self.dec2 = self.dec - 0.125, self.dec + 0.125

    @property
    def cards(self) -> dict:
        wcs = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": self.ra, "CRVAL2": self.dec}
        wcs |= {"CRPIX1": 1800.5, "CRPIX2": 1800.5, "CD1_1": -STEP, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": STEP}
        bounds = {"RAMIN": self.ra1, "RAMAX": self.ra2, "DECMIN": self.dec1, "DECMAX": self.dec2}
        return {"BRICK": self.name} | bounds | wcs | {"EQUINOX": 2000.0, "CMDLINE": "runbrick.py " * 12}


def columns_in_row(row: int) -> int:
    """The smallest even number with which no brick is wider than 0.25 degrees; one at each pole."""
    if row in (0, 720):
        return 1
    edge = abs(-90 + 0.25 * row) - 0.125
    return 2 * math.ceil(720 * math.cos(math.radians(edge)))


@dataclass(frozen=True)
class Sky:
    """What there is to be seen.

    `stars` are (RA, Dec, peak, sigma in native px), alike in all bands; `bands` those of each tree; `levels` the sky
    of some bricks by name, `missing` bricks that were not observed, `blank` (name, columns) that were not, within one.
    """

    stars: tuple = ()
    bands: dict = field(default_factory=dict, hash=False)
    levels: dict = field(default_factory=dict, hash=False)
    missing: frozenset = frozenset()
    blank: tuple = ()
    side: int = SIDE

    def file(self, tree: str, name: str, kind: str, band: str) -> bytes | None:
        """A brick's file, or None where there is none."""
        if name in self.missing or band not in self.bands.get(tree, "grz"):
            return None
        brick = Brick(name)
        blank = tuple(columns for blank, columns in self.blank if blank == name)
        level, stars = (self.levels.get(name, SKY), self._stars(brick)) if kind == "image" else (INVVAR, ())
        cards = {"FILTERX": band, "IMTYPE": kind, "MAGZERO": 22.5, "BUNIT": "nanomaggy"}
        with fits.open(io.BytesIO(compressed(kind, self.side, level, stars, blank)), **AS_STORED) as hdus:
            hdus[1].header.update(brick.cards | ({"EXTNAME": "MASKBITS"} if kind == "maskbits" else cards))
            stream = io.BytesIO()
            hdus.writeto(stream)
        return stream.getvalue()

    def _stars(self, brick: Brick) -> tuple:
        """Columns, rows, peaks and sigmas of the stars that the brick's image shows."""
        wcs = WCS(naxis=2)
        wcs.wcs.ctype, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [1800.5, 1800.5]
        wcs.wcs.crval, wcs.wcs.cd = [brick.ra, brick.dec], [[-STEP, 0], [0, STEP]]
        near = [star for star in self.stars if abs(star[1] - brick.dec) < 1]  # the far side of the sky has a place too
        places = [tuple(float(value) for value in wcs.wcs_world2pix(*star[:2], 0)) for star in near]
        found = [(*place, *star[2:]) for place, star in zip(places, near, strict=True)]
        return tuple(star for star in found if all(-50 < at < self.side + 50 for at in star[:2]))


@functools.cache
def compressed(kind: str, side: int, level: float, stars: tuple, blank: tuple) -> bytes:
    """The file without the cards of its brick; kept, because compression takes a while."""
    if kind == "maskbits":
        mask = np.zeros((side, side), np.int32)
        mask[:, :7] = 1  # NPRIMARY, say
        mask[side // 2 :, side // 2 :] |= 0x20
        how = {"compression_type": "HCOMPRESS_1", "tile_shape": (100, 100)}
        hdus = [fits.CompImageHDU(mask, **how), fits.CompImageHDU(mask.astype(np.uint8) * 0, **how)]
    else:
        pixels = np.full((side, side), level, np.float32)
        for star in stars:
            _add(pixels, *star)
        for columns in blank:
            pixels[:, slice(*columns)] = 0
        how = {"compression_type": "RICE_1", "quantize_level": -1e-4 if kind == "image" else -10.0}
        hdus = [fits.CompImageHDU(pixels, tile_shape=(100, 100), quantize_method=2, dither_seed=2329, **how)]
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(stream)
    return stream.getvalue()


def _add(pixels: np.ndarray, column: float, row: float, peak: float, sigma: float) -> None:
    reach = int(7 * sigma)
    near = [(max(0, int(at) - reach), max(0, min(len(pixels), int(at) + reach))) for at in (row, column)]
    rows, columns = (np.arange(*limits) for limits in near)
    away = (columns - column) ** 2 + (rows[:, None] - row) ** 2
    pixels[slice(*near[0]), slice(*near[1])] += peak * np.exp(-away / 2 / sigma**2)


@functools.lru_cache(128)
def _file(sky: Sky, *which: str) -> bytes | None:
    return sky.file(*which)


class BricksServer(SurveyServer):
    """`BricksServer(sky)` serves every brick of a sky. `instead`, {path's end: another path's end}, mixes files up."""

    path = "/legacysurvey"

    def __init__(self, sky: Sky, instead: dict[str, str] | None = None, port: int = 0, delay: float = 0.0):
        super().__init__(port, delay)
        self.sky, self.instead = sky, instead or {}

    def answer(self, path: str, params: dict[str, str]) -> Reply:
        asked = FILE.fullmatch(path)
        if asked is None or asked["start"] != asked["name"][:3]:
            return page("404 Not Found", 404)
        name, kind, band = asked["name"], asked["mask"] or asked["kind"], asked["band"] or ""
        name, kind, band = self.instead.get((name, kind, band), (name, kind, band))
        try:
            body = _file(self.sky, asked["tree"], name, kind, band)
        except LookupError:
            return page("404 Not Found", 404)
        return page("404 Not Found", 404) if body is None else Reply(200, body, "application/octet-stream")

    def asked_for(self) -> list[str]:
        """Paths of the requests so far, from the tree on."""
        return [path.removeprefix("/legacysurvey/") for _, path, _ in self.requests]
