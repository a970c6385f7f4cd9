"""VLA FIRST, 1.4 GHz (Becker, White & Helfand 1995, ApJ 450, 559): the cutout servers.

Two forms are known, told apart by the address. ``.../firstcutout`` takes a POST, as astroquery sends it. Of
``.../firstimage`` (``.../firstimage/post``) the fields are those that several programs send, CIRADA's cutout service
among them; whether the largest size, 1024 px (https://third.ucllnl.org/first/cutouthelp.html), holds for it too, and
what words each host has for a place without a map, was not verified on the live servers.
"""

import re

import numpy as np
from astropy.coordinates import SkyCoord

from galgaze.config import FirstSurvey
from galgaze.errors import BadImage, NoCoverage, ServiceDown, TransientError
from galgaze.surveys.base import Cutout, RemoteSurvey, Source, pixel_side
from galgaze.surveys.fits_images import check_finite, is_fits, locate, read_fits, whole_headers
from galgaze.surveys.http import Answer
from galgaze.words import words_of_page

PIXEL_SCALE_ARCSEC = 1.8
SCALE_TOLERANCE = 0.02
# Words by which the server's page says that it has no map there (rather than that it is in trouble).
NOT_COVERED = re.compile(
    r"not covered|no coverage|outside (?:of )?the (?:first |survey|area|footprint|coverage)"
    r"|not (?:yet )?(?:been )?observed|no images? (?:was|were|found|available|data)",
    re.IGNORECASE,
)
# Pages by which a server, or what stands before it, says that it is in trouble: another try there is of no use.
IN_TROUBLE = re.compile(r"no ?content|bad gateway|no resource", re.IGNORECASE)
BLANK = "blank: the edge of the survey's map, or not observed"


class First(RemoteSurvey):
    """Maps in Jy/beam, cut from the survey's grid without resampling."""

    settings: FirstSurvey

    def identity(self) -> dict:
        """The size; every host serves the same survey."""
        return {"kind": "first", "size_px": self.settings.size_px}

    def download(self, source: Source) -> tuple[bytes, str]:
        """Ask the hosts in turn; see `Survey.download`.

        A whole map, and the word that there is none, is the survey's answer and final; trouble of any kind sends the
        request to the next host.
        """
        troubles = []
        for url in self.settings.urls:
            try:
                answer = self._ask(url, source)
                if answer.status_code != 200 or not is_fits(answer.content):
                    raise TransientError(_said(url, answer))
            except (TransientError, BadImage) as error:
                troubles.append(error)
                continue
            self.decode(answer.content, source)
            return answer.content, url
        raise _together(troubles)

    def _ask(self, url: str, source: Source) -> Answer:
        form = {"Equinox": "J2000", "ImageSize": f"{self.settings.size_px * PIXEL_SCALE_ARCSEC / 60:g}"}  # arcmin

        def check(answer: Answer) -> None:
            _check(url, answer)

        if re.search(r"/firstimage(/post)?/?$", url):
            form |= {"RA": _sexagesimal(source), "Dec": "", "ImageType": "FITS Image", "Download": "1", "FITS": "1"}
            return self._client.request("GET", url, params=form, check=check)
        # one field for both: RA in hours, Dec in degrees
        position = f"{round(source.ra_deg / 15, 8) % 24:.8f} {source.dec_deg:+.7f}"
        form |= {"RA": position, "ImageType": "FITS File", "MaxImSize": str(self.settings.size_px)}
        return self._client.request("POST", url, data=form, check=check)

    def decode(self, body: bytes, source: Source) -> Cutout:
        """Check shape and coordinates against what was asked for; see `decode_first`."""
        return decode_first(body, source, self.settings.size_px)


def _check(url: str, answer: Answer) -> None:
    """Of an answer that says it is good: whether to ask this host again (see `PoliteClient.request`)."""
    if answer.status_code != 200:
        return
    if is_fits(answer.content):
        if whole_headers(answer.content)[0].get("NAXIS", 0) < 2:
            raise BadImage(f"{url}: the FITS file holds no image")
        return
    said = words_of_page(answer.content)
    if NOT_COVERED.search(said):
        raise NoCoverage(f"{url} says: {said[:200]}")
    if not IN_TROUBLE.search(said):
        raise TransientError(_said(url, answer))


def _said(url: str, answer: Answer) -> str:
    said = words_of_page(answer.content)[:200] or f"{len(answer.content)} bytes, no words"
    return f"{url}: HTTP {answer.status_code}: {said}"


def _together(troubles: list[Exception]) -> Exception:
    """One error for those of all hosts: what one of them may mend tomorrow is no fault of the source."""
    said = "; ".join(map(str, troubles))
    for kind in (ServiceDown, BadImage):
        if all(isinstance(error, kind) for error in troubles):
            return kind(said)
    return TransientError(said)


def _sexagesimal(source: Source) -> str:
    """Position as ``hh mm ss.ssss +dd mm ss.ssss``; rounded before, so that no 24 h comes out."""
    position = SkyCoord(round(source.ra_deg, 6) % 360, source.dec_deg, unit="deg")
    return position.to_string("hmsdms", sep=" ", precision=4)


def decode_first(body: bytes, source: Source, size_px: int | None = None) -> Cutout:
    """Read a FIRST map.

    A map smaller than asked for, or blank in part, is taken as it is: whether it covers the field of view is for the
    preparation to say. The servers cut from one of the survey's overlapping maps, and leave blank what lies beyond
    its edge, observed or not.

    Parameters
    ----------
    body : bytes
        The FITS file, Jy/beam.
    source : Source
        Whose position is looked up in the file's coordinates.
    size_px : int, optional
        What was asked for; None: any size is accepted.

    Returns
    -------
    Cutout
        Pixels (1, H, W) float32, Jy/beam; 0 where blank.

    Raises
    ------
    BadImage
        If the file is broken, larger than asked for, has another pixel scale or position, or is blank all over
        (which is not to say that the survey has nothing there).
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
    if not observed.any():
        raise BadImage(BLANK)
    check_finite(pixels, observed)
    return Cutout(np.where(observed, pixels, 0), "", False, observed, centre_px, jacobian)
