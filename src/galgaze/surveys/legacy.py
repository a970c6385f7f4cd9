"""DESI Legacy Imaging Surveys: the viewer's cutout service (Dey et al. 2019, AJ 157, 168)."""

import numpy as np

from galgaze.config import LegacySurvey
from galgaze.errors import BadImage, ConfigError, NoCoverage, TransientError
from galgaze.surveys.base import Cutout, Source, Survey, pixel_side
from galgaze.surveys.fits_images import card_text, check_finite, locate, read_fits
from galgaze.surveys.http import PoliteClient

BANDS = "grz"
SCALE_TOLERANCE = 0.01  # relative
CENTRE_TOLERANCE_PX = 1.0


class Legacy(Survey):
    """g r z cutouts in nanomaggies, resampled by the service to the scale asked for, north up."""

    remote = True
    settings: LegacySurvey

    def __init__(self, settings: LegacySurvey, client: PoliteClient):
        super().__init__(settings)
        self._client = client

    def identity(self) -> dict:
        """Layer, bands, size and scale; the address does not decide the pixels."""
        settings = self.settings
        return {
            "kind": "legacy",
            "layer": settings.layer,
            "bands": BANDS,
            "size_px": settings.size_px,
            "pixel_scale_arcsec": settings.pixel_scale_arcsec,
        }

    def _ask(self, ra_deg: float, dec_deg: float, size_px: int):
        parameters = {
            "ra": f"{round(ra_deg, 7) % 360:.7f}",
            "dec": f"{dec_deg:.7f}",
            "layer": self.settings.layer,
            "pixscale": f"{self.settings.pixel_scale_arcsec:g}",
            "size": str(size_px),
            "bands": BANDS,
        }
        return self._client.request("GET", f"{self.settings.url.rstrip('/')}/cutout.fits", params=parameters)

    def download(self, source: Source) -> tuple[bytes, str]:
        """Ask for one cutout; see `Survey.download`."""
        response = self._ask(source.ra_deg, source.dec_deg, self.settings.size_px)
        body, url = response.content, response.url
        if response.status_code == 500:
            self._check_alive()
            raise NoCoverage("HTTP 500 here while the service answers elsewhere: outside its footprint")
        if response.status_code != 200:
            # no fault of this source, whose position is checked: of the address, of a proxy, of our manners
            raise TransientError(f"HTTP {response.status_code} from {url}: {_excerpt(body)}")
        if body.strip().lower() == b"no such layer":
            raise ConfigError(
                f"The Legacy Surveys viewer knows no layer {self.settings.layer!r}. Correct `layer` of the survey; "
                "valid are for example ls-dr8, ls-dr9, ls-dr10 and their -north and -south."
            )
        if b"no cutouts enabled" in body[:200].lower():
            raise TransientError(f"{url}: the service has its cutouts switched off. Run again later to resume.")
        return body, url

    def _check_alive(self) -> None:
        """An outage must not read as 'no coverage': ask for a place that is surely covered, every time."""
        response = self._ask(self.settings.probe_ra_deg, self.settings.probe_dec_deg, 16)
        if response.status_code != 200 or not response.content.startswith(b"SIMPLE"):
            raise TransientError(
                f"{self.settings.url}: HTTP 500, and no image of the probe position, which is surely covered, "
                "either: the service is down. Run again later to resume."
            )

    def decode(self, body: bytes, source: Source) -> Cutout:
        """Check bands, shape and coordinates against what was asked for."""
        size = self.settings.size_px
        return decode_grz(body, source, shape=(size, size), pixel_scale_arcsec=self.settings.pixel_scale_arcsec)


def decode_grz(
    body: bytes,
    source: Source,
    shape: tuple[int, int] | None = None,
    pixel_scale_arcsec: float | None = None,
) -> Cutout:
    """Read a g r z cube as the viewer writes it.

    Parameters
    ----------
    body : bytes
        The FITS file.
    source : Source
        Whose position is looked up in the file's coordinates.
    shape, pixel_scale_arcsec
        What was asked for; None: anything is accepted.

    Raises
    ------
    BadImage
        If bands, shape, scale or centre differ from what was asked for (the service substitutes unknown
        bands and clamps sizes without a word), or the file is broken.
    NoCoverage
        If the file says so itself: OVERLAP is false, and there are no pixels.
    """
    pixels, header = read_fits(body)
    bands = card_text(header, "BANDS")
    if bands != BANDS:
        raise BadImage(f"bands {bands!r} came, {BANDS!r} were asked for")
    if pixels.ndim != 3 or len(pixels) != len(BANDS):
        raise BadImage(f"shape {pixels.shape} does not fit the bands {BANDS!r}")
    if shape is not None and pixels.shape[1:] != shape:
        raise BadImage(f"{pixels.shape[1:]} pixels came, {shape} were asked for")
    centre_px, jacobian = locate(header, source)
    scale = pixel_side(jacobian)
    if pixel_scale_arcsec is not None and abs(scale / pixel_scale_arcsec - 1) > SCALE_TOLERANCE:
        raise BadImage(f"{scale:.4f} arcsec a pixel came, {pixel_scale_arcsec} were asked for")
    _check_centre(centre_px, pixels.shape[1:], strict=shape is not None)
    # What was not observed is served as exactly 0, a missing band as 0 or NaN.
    observed = (~np.isnan(pixels) & (pixels != 0)).all(axis=0)
    check_finite(pixels, observed)
    return Cutout(np.where(observed, pixels, 0), bands, False, observed, centre_px, jacobian)


def _check_centre(centre_px: tuple[float, float], shape: tuple[int, int], strict: bool) -> None:
    column, row = centre_px
    height, width = shape
    off = max(abs(column - (width - 1) / 2), abs(row - (height - 1) / 2))
    inside = 0 <= column <= width - 1 and 0 <= row <= height - 1
    if not inside or (strict and off > CENTRE_TOLERANCE_PX):
        raise BadImage(f"the source stands {off:.1f} px off the centre of what came")


def _excerpt(body: bytes) -> str:
    return repr(" ".join(body[:120].decode("latin-1").split()))
