"""DESI Legacy Imaging Surveys: the viewer's cutout service (Dey et al. 2019, AJ 157, 168).

How the service behaves is read from its code, legacysurvey/imagine, ``map/views.py``.
"""

import functools

import numpy as np

from galgaze.config import LegacySurvey
from galgaze.errors import BadImage, ConfigError, NoCoverage, ServiceDown, TransientError
from galgaze.surveys.base import Cost, Cutout, RemoteSurvey, Source, pixel_side
from galgaze.surveys.fits_images import (
    BLOCK,
    card_text,
    check_finite,
    is_fits,
    locate,
    read_fits,
    read_hdus,
    whole_headers,
)
from galgaze.surveys.http import Answer

BANDS = "grz"  # what a cutout holds, whatever else was asked for
SCALE_TOLERANCE = 0.01  # relative
CENTRE_TOLERANCE_PX = 1.0
# Bits of MASKBITS: ALLMASK_G, _R and _Z (legacysurvey.org/dr9/bitmasks; the same in DR8 and DR10). A pixel has one
# where it is bad in every exposure of the band.
ALLMASK = 1 << 5 | 1 << 6 | 1 << 7


class Legacy(RemoteSurvey):
    """g r z cutouts in nanomaggies, resampled by the service to the scale asked for, north up."""

    settings: LegacySurvey

    def __init__(self, settings: LegacySurvey, *access):
        super().__init__(settings, *access)
        self.choose("bricks" if settings.mode == "bricks" else "cutouts")

    def identity(self) -> dict:
        """Layer, bands, size and scale, and what else was asked for; the address does not decide the pixels."""
        settings = self.settings
        extras = dict.fromkeys(self._extras, True)  # absent where not asked for: old downloads stay good
        return {
            "kind": "legacy",
            "layer": settings.layer,
            "bands": settings.bands,
            "size_px": settings.size_px,
            "pixel_scale_arcsec": settings.pixel_scale_arcsec,
            **extras,
        }

    @property
    def _extras(self) -> list[str]:
        """The further HDUs that are asked for, by the names that the service knows them by."""
        return [name for name in ("invvar", "maskbits") if getattr(self.settings, name)]

    # ---- ways

    @functools.cached_property
    def _cutter(self):
        from galgaze.surveys.legacy_bricks import BrickCutter

        return BrickCutter(self.settings, self._client, self._cache, self._no_coverage_days)

    def ways(self, ra_deg: np.ndarray, dec_deg: np.ndarray) -> list[Cost]:
        """Cutouts and bricks, the quicker one first; or the only one that mode and layer leave."""
        from galgaze.surveys.legacy_bricks import in_bricks

        mode, ways = self.settings.mode, []
        if mode != "bricks":
            ways += super().ways(ra_deg, dec_deg)
        if mode != "cutouts" and in_bricks(self.settings.layer):
            ways.append(self.cost("bricks", *self._cutter.cost(ra_deg, dec_deg)))
        return sorted(ways, key=lambda cost: cost.seconds)

    def choose(self, way: str) -> None:
        """Take ``cutouts`` or ``bricks`` from now on; raises `ConfigError` where the layer has no bricks."""
        self.keeps_itself = way == "bricks"
        self._take = self._cutter.cut if self.keeps_itself else self._download_cutout

    def close(self) -> None:
        """Let go of connections and files."""
        if "_cutter" in vars(self):
            self._cutter.close()
        super().close()

    def bytes_a_source(self) -> int:
        """Bytes of one cutout: a plane a band, as many of inverse variances, one of the mask; and headers."""
        settings = self.settings
        cube, plane = len(settings.bands) * settings.size_px**2 * 4, settings.size_px**2 * 4
        images = [cube] + [cube] * settings.invvar + [plane] * settings.maskbits
        return sum(BLOCK + -(-size // BLOCK) * BLOCK for size in images)

    # ---- downloads

    def download(self, source: Source) -> tuple[bytes, str]:
        """Ask for one cutout, or cut it from bricks; see `Survey.download`."""
        body, url = self._take(source)
        self.decode(body, source)
        return body, url

    def _download_cutout(self, source: Source) -> tuple[bytes, str]:
        answer = self._ask(source.ra_deg, source.dec_deg, self.settings.size_px, self._extras, self._check)
        if answer.status_code == 500:
            self._check_alive()
            raise NoCoverage("HTTP 500 here while the service answers elsewhere: outside its footprint")
        if answer.status_code != 200:
            # no fault of this source, whose position is checked: of the address, of a proxy, of our manners
            raise TransientError(f"HTTP {answer.status_code} from {answer.url}: {_excerpt(answer.content)}")
        return answer.content, answer.url

    def _ask(self, ra_deg: float, dec_deg: float, size_px: int, extras=(), check=None) -> Answer:
        parameters = {
            "ra": f"{round(ra_deg, 7) % 360:.7f}",
            "dec": f"{dec_deg:.7f}",
            "layer": self.settings.layer,
            "pixscale": f"{self.settings.pixel_scale_arcsec:g}",
            "size": str(size_px),
            "bands": self.settings.bands,
        }
        parameters |= dict.fromkeys(extras, "1")  # their presence counts, not their value
        url = f"{self.settings.url.rstrip('/')}/cutout.fits"
        return self._client.request("GET", url, params=parameters, check=check)

    def _check(self, answer: Answer) -> None:
        """Of an answer that says it is good: whether to ask again (see `PoliteClient.request`), or never again.

        A whole file of something else is not asked for again: the service would say the same.
        """
        if answer.status_code != 200:
            return
        body = answer.content
        if body.strip().lower() == b"no such layer":
            raise ConfigError(
                f"The Legacy Surveys viewer knows no layer {self.settings.layer!r}. Correct `layer` of the survey; "
                "valid are for example ls-dr8, ls-dr9, ls-dr10 and their -north and -south."
            )
        if b"no cutouts enabled" in body[:200].lower():
            raise ServiceDown(f"{answer.url}: the service has its cutouts switched off. Run again later to resume.")
        if not is_fits(body):
            raise TransientError(f"{answer.url}: not a FITS file, it starts with: {_excerpt(body)}. Run again later.")
        headers = whole_headers(body)
        if self._extras and headers[0].get("NAXIS"):  # without pixels, `decode` says why
            _require(self._extras, [card_text(header, "IMAGETYP") for header in headers])

    def _check_alive(self) -> None:
        """An outage must not read as 'no coverage': ask for a place that is surely covered, every time."""
        answer = self._ask(self.settings.probe_ra_deg, self.settings.probe_dec_deg, 16)
        if answer.status_code != 200 or not is_fits(answer.content):
            raise TransientError(
                f"{self.settings.url}: HTTP 500, and no image of the probe position, which is surely covered, "
                "either: the service is down. Run again later to resume."
            )

    def decode(self, body: bytes, source: Source) -> Cutout:
        """Check bands, shape, coordinates and further HDUs against what was asked for; see `decode_grz`."""
        settings = self.settings
        size = settings.size_px
        return decode_grz(
            body,
            source,
            shape=(size, size),
            pixel_scale_arcsec=settings.pixel_scale_arcsec,
            bands=settings.bands,
            invvar=settings.invvar,
            maskbits=settings.maskbits,
        )


def decode_grz(
    body: bytes,
    source: Source,
    shape: tuple[int, int] | None = None,
    pixel_scale_arcsec: float | None = None,
    bands: str = BANDS,
    invvar: bool = False,
    maskbits: bool = False,
) -> Cutout:
    """Read a cube as the viewer writes it; the cutout holds g, r and z.

    Without inverse variances, a pixel counts as observed where no band of g r z is exactly 0 (which the service
    writes for what it has not, so a true 0 is lost) or NaN (a band that a whole layer lacks). With them, where they
    are above 0 in all three.

    Parameters
    ----------
    body : bytes
        The FITS file, nanomaggies.
    source : Source
        Whose position is looked up in the file's coordinates.
    shape, pixel_scale_arcsec
        What was asked for; None: anything is accepted.
    bands : str
        What was asked for: planes of ``grz`` or ``griz``, in this order. i is not looked at.
    invvar, maskbits : bool
        Whether the HDUs of this type were asked for: the inverse variances, a cube of the image's shape, and the
        mask, a plane of whole numbers, of which the bits `ALLMASK` count.

    Returns
    -------
    Cutout
        Pixels (3, H, W) float32, nanomaggies; 0 where not observed.

    Raises
    ------
    BadImage
        If bands, shape, scale or centre differ from what was asked for (the service substitutes unknown
        bands and clamps sizes without a word), an HDU is missing, or the file is broken.
    NoCoverage
        If the file says so itself: OVERLAP is false, and there are no pixels.
    """
    pixels, header = read_fits(body)
    found = card_text(header, "BANDS")
    if found != bands:
        raise BadImage(f"bands {found!r} came, {bands!r} were asked for")
    if pixels.ndim != 3 or len(pixels) != len(bands):
        raise BadImage(f"shape {pixels.shape} does not fit the bands {bands!r}")
    if shape is not None and pixels.shape[1:] != shape:
        raise BadImage(f"{pixels.shape[1:]} pixels came, {shape} were asked for")
    centre_px, jacobian = locate(header, source)
    scale = pixel_side(jacobian)
    if pixel_scale_arcsec is not None and abs(scale / pixel_scale_arcsec - 1) > SCALE_TOLERANCE:
        raise BadImage(f"{scale:.4f} arcsec a pixel came, {pixel_scale_arcsec} were asked for")
    _check_centre(centre_px, pixels.shape[1:], strict=shape is not None)
    extras = _read_extras(body, pixels.shape, invvar, maskbits)
    planes = [bands.index(band) for band in BANDS]
    pixels = pixels[planes]
    weights = extras["invvar"][planes] if invvar else pixels != 0
    observed = (~np.isnan(pixels) & (weights > 0)).all(axis=0)
    if maskbits:
        observed &= (extras["maskbits"] & ALLMASK) == 0
    check_finite(pixels, observed)
    return Cutout(np.where(observed, pixels, 0), BANDS, False, observed, centre_px, jacobian)


def _read_extras(body: bytes, shape: tuple, invvar: bool, maskbits: bool) -> dict[str, np.ndarray]:
    """The arrays of further HDUs that were asked for, by name; raises `BadImage`."""
    expected = {"invvar": shape} if invvar else {}
    expected |= {"maskbits": shape[1:]} if maskbits else {}
    if not expected:
        return {}
    hdus = [(card_text(header, "IMAGETYP"), data) for data, header in read_hdus(body)]
    _require(list(expected), [kind for kind, _ in hdus])
    extras = {kind.lower(): data for kind, data in hdus[1:]}
    for name, wanted in expected.items():
        found = None if extras[name] is None else extras[name].shape
        if found != wanted:
            raise BadImage(f"{name.upper()}: shape {found} came, {wanted} was expected")
    if maskbits and not np.issubdtype(extras["maskbits"].dtype, np.integer):
        raise BadImage(f"MASKBITS: {extras['maskbits'].dtype} came, whole numbers were expected")
    return extras


def _require(names: list[str], types: list[str]) -> None:
    """Refuse a file without the HDUs asked for; `types` are the IMAGETYP of all of them."""
    missing = [name.upper() for name in names if name not in [kind.lower() for kind in types[1:]]]
    if missing:
        raise BadImage(
            f"no HDU {' and '.join(missing)} came, which was asked for (IMAGETYP of what came: {', '.join(types)}); "
            "the service leaves it out for coarse pixels"
        )


def _check_centre(centre_px: tuple[float, float], shape: tuple[int, int], strict: bool) -> None:
    column, row = centre_px
    height, width = shape
    off = max(abs(column - (width - 1) / 2), abs(row - (height - 1) / 2))
    inside = 0 <= column <= width - 1 and 0 <= row <= height - 1
    if not inside or (strict and off > CENTRE_TOLERANCE_PX):
        raise BadImage(f"the source stands {off:.1f} px off the centre of what came")


def _excerpt(body: bytes) -> str:
    return repr(" ".join(body[:120].decode("latin-1").split()))
