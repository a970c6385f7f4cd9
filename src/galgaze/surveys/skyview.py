"""SkyView (McGlynn, Scollick & White 1998, IAU Symposium 179, 465): any of its surveys, resampled, as one plane.

astroquery knows the form, its defaults and the names of the surveys, and finds the link in the answering page; what
goes over the wire goes through our client. Its own way of sending is left out for two more reasons: it rounds
positions to six digits (at RA 150 that is 1.8 arcsec, a pixel of FIRST), and asks for the form at every source.
"""

import difflib
import re
import threading

import numpy as np
from astroquery.skyview import SkyViewClass

from galgaze.config import SkyviewSurvey
from galgaze.errors import BadImage, ConfigError, NoCoverage, TransientError
from galgaze.surveys.base import Cutout, RemoteSurvey, Source, pixel_side
from galgaze.surveys.fits_images import check_finite, locate, read_fits
from galgaze.surveys.http import Answer
from galgaze.words import words_of_page

SCALE_TOLERANCE = 0.01  # relative
CENTRE_TOLERANCE_PX = 1.0
PAGE_BYTES = 30_000  # of the page with the link, about
# SkyView's own words (its class Imager): on the page, or among the settings in a script on it, where the page links to
# a FITS file that was never made.
NO_IMAGES = re.compile(rb"No candidate images were found|No images in FOV")
FORM = re.compile(rb"(?is)<form\b.*<select[^>]*name=['\"]?survey.*</form>")
ERROR = re.compile(rb"(?is)Error processing survey:.{0,300}")


class _Form(SkyViewClass):
    """astroquery's client, with the form fetched by ours, once."""

    def __init__(self, url: str, client):
        super().__init__()
        self.URL, self._client = url, client
        self._page: _Page | None = None

    def _request(self, method, url, **_):
        if self._page is None:
            answer = self._client.request(method, url, check=_check_form)
            if answer.status_code != 200:
                raise TransientError(f"HTTP {answer.status_code} from {answer.url}, where SkyView's form was expected")
            self._page = _Page(*answer)
        return self._page


class _Page(Answer):
    """An answer with the one method of `requests` that astroquery calls."""

    def raise_for_status(self):
        """Nothing: only good answers get this far."""


class Skyview(RemoteSurvey):
    """Images on a TAN grid around the source, north up, sampled as SkyView does by default (nearest neighbour).

    Two requests a source: one has the image made, one gets it. Where SkyView says that it has no images, or sends a
    map of nothing, that is `NoCoverage`. (Of surveys that SkyView itself fetches from elsewhere, 2MASS for example, it
    may say so as well when it cannot reach them; it has FIRST.) The form (120 kB) is asked for once a process.
    """

    settings: SkyviewSurvey

    def __init__(self, settings: SkyviewSurvey, *access):
        super().__init__(settings, *access)
        self._lock = threading.Lock()
        self._form: tuple[str, dict] | None = None

    def identity(self) -> dict:
        """Survey, size and scale; the address does not decide the pixels."""
        settings = self.settings
        return {
            "kind": "skyview",
            "survey": settings.survey,
            "size_px": settings.size_px,
            "pixel_scale_arcsec": settings.pixel_scale_arcsec,
        }

    def requests_a_source(self) -> int:
        """The page, and the image that it links to."""
        return 2

    def bytes_a_source(self) -> int:
        """Of both."""
        return super().bytes_a_source() + PAGE_BYTES

    def download(self, source: Source) -> tuple[bytes, str]:
        """Have an image made, and get it; the address is the request's, as the image's own is soon gone."""
        action, defaults = self._known_form()
        page = self._client.request("GET", action, self._check_page, params=defaults | self._wanted(source))
        if page.status_code != 200:
            raise TransientError(f"HTTP {page.status_code} from {page.url}")
        link = self._links(page)[0]
        image = self._client.request("GET", link, check=lambda answer: self._check_image(answer, source))
        if image.status_code != 200:
            raise TransientError(f"HTTP {image.status_code} from {link}, which SkyView's page links to")
        return image.content, page.url

    def decode(self, body: bytes, source: Source) -> Cutout:
        """Check shape and coordinates against what was asked for."""
        return decode_plane(body, source, self.settings.size_px, self.settings.pixel_scale_arcsec)

    def _wanted(self, source: Source) -> dict[str, str]:
        """What differs from the form's defaults, or must not depend on them."""
        settings = self.settings
        side_deg = f"{settings.size_px * settings.pixel_scale_arcsec / 3600:.9g}"
        return {
            "Position": f"{round(source.ra_deg, 7) % 360:.7f} {source.dec_deg:.7f}",
            "survey": settings.survey,
            "coordinates": "J2000",
            "projection": "Tan",
            "pixels": str(settings.size_px),
            "size": side_deg,
            "imscale": side_deg,
            "float": "on",
            "scaling": "Linear",  # of the quick look alone; the form's default is not read well
        }

    def _known_form(self) -> tuple[str, dict]:
        """Where the form goes to, and its defaults."""
        with self._lock:
            if self._form is None:
                form = _Form(self.settings.url, self._client)
                self._check_survey([name for names in form.survey_dict.values() for name in names])
                self._form = form._generate_payload()
            return self._form

    def _check_survey(self, known: list[str]) -> None:
        name = self.settings.survey
        if name in known:
            return
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
        hint = f" Near to it are: {', '.join(near)}." if near else ""
        raise ConfigError(f"SkyView has no survey {name!r}. Correct `survey` of the survey of kind skyview.{hint}")

    def _links(self, page: Answer) -> list[str]:
        return SkyViewClass._parse_response(None, page)

    def _check_page(self, page: Answer) -> None:
        if page.status_code != 200:
            return
        if NO_IMAGES.search(page.content):
            raise NoCoverage(f"SkyView has no images of {self.settings.survey} there")
        if not self._links(page):
            said = ERROR.search(page.content)
            words = words_of_page(said[0] if said else page.content)[:200]
            raise TransientError(f"{page.url}: no FITS file; SkyView says: {words}")

    def _check_image(self, image: Answer, source: Source) -> None:
        if image.status_code == 200:
            self.decode(image.content, source)


def decode_plane(body: bytes, source: Source, size_px: int, pixel_scale_arcsec: float) -> Cutout:
    """Read an image of one plane that was resampled for us: a radio map in Jy/beam, if the service has it so.

    Parameters
    ----------
    body : bytes
        The FITS file.
    source : Source
        Around which it was asked for.
    size_px : int
        Side asked for.
    pixel_scale_arcsec : float
        Arcsec a pixel asked for.

    Returns
    -------
    Cutout
        (1, size_px, size_px) pixels, ``bands`` empty.

    Raises
    ------
    BadImage
        If the file is broken, constant, or shape, scale or centre are not what was asked for.
    NoCoverage
        If every pixel is NaN or 0, which is how these services write what was not observed.
    """
    pixels, header = read_fits(body)
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    if pixels.shape != (1, size_px, size_px):
        raise BadImage(f"{pixels.shape} pixels came, {(1, size_px, size_px)} were asked for")
    centre_px, jacobian = locate(header, source)
    scale = pixel_side(jacobian)
    if abs(scale / pixel_scale_arcsec - 1) > SCALE_TOLERANCE:
        raise BadImage(f"{scale:.4f} arcsec a pixel came, {pixel_scale_arcsec:g} were asked for")
    off = max(abs(place - (size_px - 1) / 2) for place in centre_px)
    if off > CENTRE_TOLERANCE_PX:
        raise BadImage(f"the source stands {off:.1f} px off the centre of what came")
    observed = (~np.isnan(pixels) & (pixels != 0))[0]
    if not observed.any():
        raise NoCoverage("the image that came holds nothing (0 or NaN everywhere)")
    check_finite(pixels, observed)
    return Cutout(np.where(observed, pixels, 0), "", False, observed, centre_px, jacobian)


def _check_form(answer: Answer) -> None:
    if answer.status_code == 200 and not FORM.search(answer.content):
        raise TransientError(
            f"{answer.url}: SkyView's form was expected, this came: {words_of_page(answer.content)[:200]}"
        )
