"""A local server that speaks the Legacy Surveys viewer's cutout protocol, over a folder of FITS cubes.

Traps of the real one are kept: an unknown layer is 200 "no such layer", an unknown band gives the layer's
default bands, sizes are clamped to 3000, no overlap is 500 for FITS and 200 for JPEG, unobserved pixels are
0.0. As there, a finer or coarser grid keeps the pixels' values: they are flux a native pixel of the survey.

Files named north-* are of the northern surveys, south-* of the southern one, others of both. The layers ls-dr9 and
ls-dr10 are split: rows north of Dec 32.375 come from the northern files, the others from the southern ones. The
north has no i band; where a file of the south has none, i is made from r and z.
"""

import csv
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from astropy.wcs.utils import proj_plane_pixel_scales
from PIL import Image
from scipy.ndimage import map_coordinates

from tests.servers import header
from tests.servers.base import Reply, SurveyServer, arguments, page, serve

FITS_PATHS = ("/viewer/cutout.fits", "/viewer/fits-cutout")
JPEG_PATHS = ("/viewer/cutout.jpg", "/viewer/jpeg-cutout")
LAYERS = {f"ls-dr{n}{part}": "grz" for n in (8, 9, 10) for part in ("", "-north", "-south")}
LAYERS |= {"ls-dr10": "griz", "ls-dr10-south": "griz", "ls-dr10-grz": "grz"}
SPLIT = ("ls-dr9", "ls-dr10", "ls-dr10-grz")
SEAM_DEC = 32.375
LARGEST_PX = 3000
PIXEL_SCALE = 0.262
COARSEST_INVVAR = 2 * PIXEL_SCALE  # the images binned 2 x 2 have no companions
INVVAR = 62500.0
RGB_SCALES = {"z": 2.2, "r": 3.4, "g": 6.0}


class Source(NamedTuple):
    """A file to cut from; `whole` says whether all the bytes that its header promises are there."""

    path: Path
    values: dict
    ra: float
    dec: float
    whole: bool

    def on(self, side: str) -> bool:
        """Whether the file is of the `north` or the `south`."""
        named = self.path.name.split("-")[0]
        return named == side or named not in ("north", "south")


class Grid(NamedTuple):
    """The pixels asked for."""

    ra: float
    dec: float
    width: int
    height: int
    pixscale: float

    def values(self) -> dict:
        """WCS cards as the viewer writes them."""
        step = self.pixscale / 3600
        return {
            "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": self.ra, "CRVAL2": self.dec,
            "CRPIX1": (self.width + 1) / 2, "CRPIX2": (self.height + 1) / 2,
            "CD1_1": -step, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": step,
            "IMAGEW": float(self.width), "IMAGEH": float(self.height),
        }  # fmt: skip

    def rows_north_of(self, dec: float) -> np.ndarray:
        """Whether each row lies north of a Dec, at the grid's middle column."""
        rows = np.arange(self.height)
        middle = np.column_stack([np.full(self.height, (self.width - 1) / 2), rows])
        return header.celestial_wcs(self.values()).wcs_pix2world(middle, 0)[:, 1] >= dec

    def cut(self, source: Source, bands: str, absent: float) -> tuple[np.ndarray, np.ndarray]:
        """The source's bands resampled onto this grid, and where they were observed; `absent` for a missing band."""
        y, x = np.mgrid[: self.height, : self.width]
        sky = header.celestial_wcs(self.values()).wcs_pix2world(x.ravel(), y.ravel(), 0)
        x, y = header.celestial_wcs(source.values).wcs_world2pix(*sky, 0)
        where = np.round([y, x], 6).reshape(2, self.height, self.width)
        with fits.open(io.BytesIO(header.read_bytes(source.path))) as hdus:
            cube = np.nan_to_num(hdus[0].data.astype(np.float32).reshape(-1, *hdus[0].data.shape[-2:]))
        edge = np.reshape(cube.shape[1:], (2, 1, 1)) - 0.5
        inside = ((where > -0.5) & (where < edge)).all(axis=0)
        planes = dict(zip(source.values.get("BANDS", "grz"), cube, strict=False))
        if {"r", "z"} <= planes.keys() and "i" not in planes and source.on("south"):
            planes["i"] = np.where(planes["r"] * planes["z"] == 0, 0, (planes["r"] + planes["z"]) / 2)
        image = np.full((len(bands), self.height, self.width), absent, np.float32)
        seen = np.zeros(image.shape, bool)
        for n, band in enumerate(bands):
            if band in planes:
                seen[n] = inside & (map_coordinates(planes[band], where, order=0, mode="nearest") != 0)
                image[n] = map_coordinates(planes[band], where, order=1, mode="nearest") * seen[n]
        return image, seen


class LegacyServer(SurveyServer):
    """`LegacyServer(folder)` serves the folder's cubes where they are on the sky.

    `positions`, {file name: (ra, dec)}, chooses the files, and centres each at another position, for files
    that share one. Of several files the one centred nearest to the request answers, the first by name when
    they tie. A file cut short on disk is sent as it is. `absent` fills the plane of a band that a file lacks.
    """

    path = "/viewer"

    def __init__(self, folder, positions: dict | None = None, port: int = 0, delay: float = 0.0):
        super().__init__(port, delay)
        self.positions = positions
        self.absent = 0.0
        paths = header.fits_files(folder) if positions is None else [Path(folder, name) for name in positions]
        self.sources = [self._source(path) for path in paths]

    def _source(self, path: Path) -> Source:
        raw = header.read_bytes(path)
        values, size = header.parse_header(raw)
        if self.positions is None:
            ra, dec = header.centre(values)
        else:
            ra, dec = map(float, self.positions[path.name])
            middle = {"CRPIX1": (values["NAXIS1"] + 1) / 2, "CRPIX2": (values["NAXIS2"] + 1) / 2}
            values |= middle | {"CRVAL1": ra, "CRVAL2": dec}
        return Source(path, values, ra, dec, len(raw) >= size)

    def answer(self, path: str, params: dict[str, str]) -> Reply:
        if path not in FITS_PATHS + JPEG_PATHS:
            return page("Not found", 404)
        layer = params.get("layer", "ls-dr9")
        if layer not in LAYERS:
            return Reply(200, b"no such layer")
        try:
            ra, dec = float(params["ra"]), float(params["dec"])
        except (KeyError, ValueError):
            return Reply(400, b"Need ra,dec keywords")
        try:
            pixscale = float(params.get("pixscale", PIXEL_SCALE))
            size = int(params.get("size", 256))
            width, height = (min(int(params.get(side, size)), LARGEST_PX) for side in ("width", "height"))
            if not pixscale > 0 or width < 1 or height < 1:
                raise ValueError("no pixels")
        except ValueError:
            return page("Server Error (500)", 500)
        if {"rotate", "subimage", "zoom"} & params.keys():
            return page("This test server knows no rotate, subimage or zoom", 501)
        bands = params.get("bands", "")
        if not bands or not set(bands) <= set(LAYERS[layer]):
            bands = LAYERS[layer]
        grid = Grid(ra, dec, width, height, pixscale)
        return self._jpeg(grid, bands, layer) if path in JPEG_PATHS else self._fits(grid, bands, layer, params)

    def _overlapping(self, grid: Grid):
        """Sources that may overlap the grid, nearest first, with their distances in arcsec."""
        away = header.separations_arcsec(
            grid.ra, grid.dec, np.array([s.ra for s in self.sources]), np.array([s.dec for s in self.sources])
        )
        reach = np.hypot(grid.width, grid.height) / 2 * grid.pixscale
        for n in np.argsort(away, kind="stable"):
            if away[n] <= reach + _half_diagonal_arcsec(self.sources[n]):
                yield self.sources[n], away[n]

    def _cut(self, grid: Grid, bands: str, layer: str):
        """The image and where it was observed; rows of split layers come from either side of the seam."""
        for side in ("north", "south"):
            if layer.endswith(side):
                return self._cut_side(grid, bands, side)
        south = self._cut_side(grid, bands, "south")
        if layer not in SPLIT or all(source.on("south") for source in self.sources):
            return south
        north = self._cut_side(grid, bands, "north")
        if north is None or south is None:
            return north or south
        rows = grid.rows_north_of(SEAM_DEC)
        for ours, theirs in zip(south, north, strict=True):
            ours[:, rows] = theirs[:, rows]
        return south

    def _cut_side(self, grid: Grid, bands: str, side: str):
        for source, _ in self._overlapping(grid):
            if source.whole and source.on(side):
                image, seen = grid.cut(source, bands, self.absent)
                if seen.any():
                    return image, seen
        return None

    def _fits(self, grid: Grid, bands: str, layer: str, params: dict[str, str]) -> Reply:
        for source, away in self._overlapping(grid):
            if not source.whole and away < _half_diagonal_arcsec(source) / 2:
                return Reply(200, self._raw(source), "image/fits")
            break
        cut = self._cut(grid, bands, layer)
        if cut is None:
            return page("Server Error (500)", 500)
        image, seen = cut
        release = layer.split("-")[1].upper()
        cards = {"SURVEY": "DECaLS", "VERSION": release, "IMAGETYP": "IMAGE", "BANDS": bands}
        cards |= {f"BAND{n}": band for n, band in enumerate(bands)} | grid.values()
        hdus = fits.HDUList([_hdu(fits.PrimaryHDU, image, cards)])
        if grid.pixscale < COARSEST_INVVAR:
            if "invvar" in params:
                hdus.append(_hdu(fits.ImageHDU, np.float32(INVVAR) * seen, cards | {"IMAGETYP": "INVVAR"}))
            if "maskbits" in params:
                mask = np.zeros(seen.shape[1:], np.int32)
                hdus.append(_hdu(fits.ImageHDU, mask, cards | {"IMAGETYP": "MASKBITS"}))
        stream = io.BytesIO()
        hdus.writeto(stream)
        return Reply(200, stream.getvalue(), "image/fits")

    def _raw(self, source: Source) -> bytes:
        raw = header.read_bytes(source.path)
        if self.positions is not None:
            for keyword in ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2"):
                raw = header.with_number(raw, keyword, source.values[keyword])
        return raw

    def _jpeg(self, grid: Grid, bands: str, layer: str) -> Reply:
        bands = [band for band in bands if band in RGB_SCALES] or list(RGB_SCALES)
        cut = self._cut(grid, bands, layer)
        image = np.zeros((len(bands), grid.height, grid.width)) if cut is None else cut[0]
        stream = io.BytesIO()
        Image.fromarray(colours(dict(zip(bands, image, strict=True)))).save(stream, "JPEG", quality=95)
        return Reply(200, stream.getvalue(), "image/jpeg")


def colours(planes: dict[str, np.ndarray], q: float = 20, offset: float = 0.03) -> np.ndarray:
    """The viewer's colour composite, (H, W, 3) uint8, north up: red z, green r, blue g."""
    scaled = {band: np.maximum(0, plane * RGB_SCALES[band] + offset) for band, plane in planes.items()}
    mean = np.maximum(sum(scaled.values()) / len(scaled), 1e-6)
    factor = np.arcsinh(q * mean) / np.sqrt(q) / mean
    rgb = np.stack([np.clip(scaled.get(band, 0 * mean) * factor, 0, 1) for band in RGB_SCALES], axis=-1)
    return np.uint8(np.round(rgb[::-1] * 255))


def _half_diagonal_arcsec(source: Source) -> float:
    scale = proj_plane_pixel_scales(header.celestial_wcs(source.values))[0] * 3600
    return np.hypot(source.values["NAXIS1"], source.values["NAXIS2"]) / 2 * scale


def _hdu(kind, data: np.ndarray, cards: dict):
    """One band is a 2-D image, several are a cube."""
    hdu = kind(data[0] if data.ndim == 3 and len(data) == 1 else data)
    hdu.header.update(cards)
    return hdu


def read_positions(path: str | Path) -> dict[str, tuple[float, float]]:
    """A CSV table with columns file, ra and dec (deg)."""
    with open(path, newline="", encoding="utf-8") as stream:
        return {row["file"]: (float(row["ra"]), float(row["dec"])) for row in csv.DictReader(stream)}


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--positions", help="CSV table (file,ra,dec): serve these files alone, and there")
    options = parser.parse_args()
    positions = read_positions(options.positions) if options.positions else None
    serve(LegacyServer(options.folder, positions, options.port, options.delay))
