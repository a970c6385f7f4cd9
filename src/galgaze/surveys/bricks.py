"""The bricks of the Legacy Surveys: a tiling of the sky, and the image that belongs to each brick.

Rows of 0.25 degrees in Dec are centred on -90, -89.75 ... +90. Each is divided evenly in RA into an even number of
bricks, the fewest of which none is wider on the sky than 0.25 degrees; at the poles there is one brick. The numbers are
those of the surveys (BRICKID of ``survey-bricks.fits.gz``; https://www.legacysurvey.org/dr9/files): from 1 at the south
pole, eastward, row by row. An image is larger than its brick: neighbours overlap by 43 arcsec, and more near the poles.
"""

import functools
from typing import NamedTuple

import numpy as np
from astropy.wcs import WCS

BRICK_DEG = 0.25
SIDE_PX = 3600
PIXEL_SCALE_ARCSEC = 0.262
AT_ONCE = 50_000  # cutouts whose points are held in memory together

_ROW_DEC = np.arange(-90.0, 90.0 + BRICK_DEG / 2, BRICK_DEG)
# where a row is widest: at its edge nearer to the equator
_WIDEST = np.cos(np.radians(np.abs(_ROW_DEC) - BRICK_DEG / 2))
_COLUMNS = 2 * np.ceil(360 / BRICK_DEG * _WIDEST / 2).astype(int)
_COLUMNS[[0, -1]] = 1
_BEFORE = np.concatenate([[0], np.cumsum(_COLUMNS)])  # bricks in the rows to the south
BRICKS = int(_BEFORE[-1])


class Brick(NamedTuple):
    """A tile of the sky, and the centre of its image."""

    brick_id: int
    name: str
    ra_deg: float
    dec_deg: float


def brick_ids(ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
    """Numbers of the bricks whose own ("primary") areas hold these positions.

    Parameters
    ----------
    ra_deg, dec_deg : numpy.ndarray
        Any shape; RA is taken modulo 360, Dec is from -90 to 90.

    Returns
    -------
    numpy.ndarray of int
        The same shape, from 1 to `BRICKS`. A position on an edge belongs to the brick north or east of it.
    """
    ra, dec = np.mod(ra_deg, 360), np.asarray(dec_deg)
    row = np.floor((dec + 90 + BRICK_DEG / 2) / BRICK_DEG).astype(int)
    # the remainder of a tiny negative number is 360 itself
    column = np.minimum(np.floor(ra / 360 * _COLUMNS[row]).astype(int), _COLUMNS[row] - 1)
    return _BEFORE[row] + column + 1


@functools.lru_cache(4096)
def brick(brick_id: int) -> Brick:
    """The brick of a number; its name is RA and Dec of the centre in tenths of a degree, cut off: ``1498p017``."""
    row = int(np.searchsorted(_BEFORE, brick_id)) - 1
    column = brick_id - _BEFORE[row] - 1
    ra, dec = float((column + 0.5) * 360 / _COLUMNS[row]), float(_ROW_DEC[row])
    # rounded before they are cut off: 39.599999999 is 39.6
    tenths_ra, tenths_dec = round(ra * 1e4) // 1000, round(abs(dec) * 1e4) // 1000
    return Brick(int(brick_id), f"{tenths_ra:04d}{'p' if dec >= 0 else 'm'}{tenths_dec:03d}", ra, dec)


def tangent_plane(ra_deg: float, dec_deg: float, size_px: int, pixel_scale_arcsec: float) -> WCS:
    """Coordinates of a square image, north up and east left, that touches the sky at its centre (TAN)."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra_deg, dec_deg]
    wcs.wcs.crpix = [(size_px + 1) / 2] * 2
    step = pixel_scale_arcsec / 3600
    wcs.wcs.cd = [[-step, 0], [0, step]]
    wcs.wcs.set()
    return wcs


def brick_plane(of: Brick) -> WCS:
    """Coordinates of a brick's image."""
    return tangent_plane(of.ra_deg, of.dec_deg, SIDE_PX, PIXEL_SCALE_ARCSEC)


def bricks_touched(ra_deg: np.ndarray, dec_deg: np.ndarray, side_deg: float) -> np.ndarray:
    """Numbers of all bricks that square cutouts at these positions reach into, each once, sorted.

    Parameters
    ----------
    ra_deg, dec_deg : numpy.ndarray
        (N,) centres.
    side_deg : float
        Side of the squares, north up.
    """
    points = np.linspace(-0.5, 0.5, 3 + int(side_deg / (BRICK_DEG / 4)))
    east, north = (np.radians(side_deg * offset.ravel()) for offset in np.meshgrid(points, points))
    found = [np.zeros(0, int)]
    for start in range(0, len(ra_deg), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        found.append(
            np.unique(brick_ids(*_on_the_sky(np.asarray(ra_deg)[some], np.asarray(dec_deg)[some], east, north)))
        )
    return np.unique(np.concatenate(found))


def _on_the_sky(ra_deg, dec_deg, east, north):
    """Positions (N, M) in degrees of M points (radians) on the planes that touch the sky at N positions."""
    ra, dec = np.radians(ra_deg)[:, None], np.radians(dec_deg)[:, None]
    toward_pole = np.sin(dec) + north * np.cos(dec)
    outward = np.cos(dec) - north * np.sin(dec)
    return (
        np.degrees(ra + np.arctan2(east, outward)),
        np.degrees(np.arctan2(toward_pole, np.hypot(outward, east))),
    )
