"""VLA FIRST, 1.4 GHz (Becker, White & Helfand 1995, ApJ 450, 559): the cutout server."""

import re

import numpy as np

from galgaze.config import FirstSurvey
from galgaze.errors import BadImage, NoCoverage, TransientError
from galgaze.surveys.base import Cutout, Source, Survey, pixel_side
from galgaze.surveys.fits_images import check_finite, locate, read_fits
from galgaze.surveys.http import PoliteClient

PIXEL_SCALE_ARCSEC = 1.8
SCALE_TOLERANCE = 0.02
# Words by which the server's page says that it has no map there (rather than that it is in trouble).
NOT_COVERED = re.compile(
    r"not covered|no coverage|outside (?:of )?the (?:first |survey|area|footprint|coverage)"
    r"|not (?:yet )?(?:been )?observed|no images? (?:was|were|found|available|data)",
    re.IGNORECASE,
)


class First(Survey):
    """Maps in Jy/beam, cut from the survey's grid without resampling."""

    remote = True
    settings: FirstSurvey

    def __init__(self, settings: FirstSurvey, client: PoliteClient):
        super().__init__(settings)
        self._client = client

    def identity(self) -> dict:
        """The size; every host serves the same survey."""
        return {"kind": "first", "size_px": self.settings.size_px}

    def download(self, source: Source) -> tuple[bytes, str]:
        """Ask the hosts in turn; see `Survey.download`."""
        form = {
            # one field for both: RA in hours, Dec in degrees
            "RA": f"{round(source.ra_deg / 15, 8) % 24:.8f} {source.dec_deg:+.7f}",
            "Equinox": "J2000",
            "ImageSize": f"{self.settings.size_px * PIXEL_SCALE_ARCSEC / 60:g}",
            "ImageType": "FITS File",
            "MaxImSize": str(self.settings.size_px),
        }
        troubles = []
        for url in self.settings.urls:
            try:
                response = self._client.request("POST", url, data=form)
            except TransientError as error:
                troubles.append(str(error))
                continue
            body = response.content
            if response.status_code == 200 and body.startswith(b"SIMPLE"):
                return body, url
            said = _text_of(body)
            if response.status_code == 200 and NOT_COVERED.search(said):
                raise NoCoverage(f"{url} says: {said[:200]}")
            troubles.append(f"{url}: HTTP {response.status_code}: {said[:200]}")
        raise TransientError("; ".join(troubles))

    def decode(self, body: bytes, source: Source) -> Cutout:
        """Check shape and coordinates against what was asked for."""
        return decode_first(body, source, self.settings.size_px)


def decode_first(body: bytes, source: Source, size_px: int | None = None) -> Cutout:
    """Read a FIRST map.

    A map smaller than asked for is taken as it is: whether it covers the field of view is for the
    preparation to say.

    Raises
    ------
    BadImage
        If the file is broken, larger than asked for, or has another pixel scale or position.
    """
    pixels, header = read_fits(body)
    if pixels.ndim == 3 and len(pixels) == 1:
        pixels = pixels[0]
    if pixels.ndim != 2:
        raise BadImage(f"a map of shape {pixels.shape} came, two axes were expected")
    if size_px is not None and max(pixels.shape) > size_px + 1:
        raise BadImage(f"{pixels.shape} pixels came, {size_px} were asked for")
    centre_px, jacobian = locate(header, source)
    scale = pixel_side(jacobian)
    if abs(scale / PIXEL_SCALE_ARCSEC - 1) > SCALE_TOLERANCE:
        raise BadImage(f"{scale:.3f} arcsec a pixel came, FIRST has {PIXEL_SCALE_ARCSEC}")
    column, row = centre_px
    if not (0 <= column <= pixels.shape[1] - 1 and 0 <= row <= pixels.shape[0] - 1):
        raise BadImage("the source does not stand on the map that came")
    pixels = pixels[None]  # (1, H, W)
    # beyond the edge of the parent map the server sends NaN or 0
    observed = (~np.isnan(pixels) & (pixels != 0))[0]
    check_finite(pixels, observed)
    return Cutout(np.where(observed, pixels, 0), "", False, observed, centre_px, jacobian)


def _text_of(body: bytes) -> str:
    """The words of an HTML page, in one line."""
    text = re.sub(r"(?is)<(script|style)\b.*?</\1>|<[^>]*>", " ", body[:20_000].decode("latin-1"))
    return " ".join(text.split())
