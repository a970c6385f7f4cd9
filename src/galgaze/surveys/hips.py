"""CDS's hips2fits (Boch et al. 2020, ASP Conf. 527, 121): HiPS images, resampled to the grid asked for.

astroquery forms the request; our client sends it. Cutouts through HiPS are resampled twice: good for looking, and as
a fallback, not for photometry.
"""

import io
import json
import warnings

import astropy.units as u
import numpy as np
from astropy.coordinates import Angle, Latitude, Longitude
from astropy.io import fits
from astropy.wcs import WCS
from astroquery.hips2fits import hips2fits

from galgaze.config import HipsSurvey
from galgaze.errors import BadImage, ConfigError, NoCoverage, TransientError
from galgaze.surveys.base import Cutout, RemoteSurvey, Source
from galgaze.surveys.fits_images import in_short, locate, read_fits
from galgaze.surveys.http import Answer
from galgaze.surveys.legacy import decode_grz
from galgaze.surveys.skyview import decode_plane

BANDS = "grz"
RADIO = "radio"
REFUSED = (400, 404, 422)  # "your request is wrong"; what else may be wrong passes
FOR_PICTURES = ("min_cut", "max_cut", "stretch", "cmap")  # parameters of JPEG and PNG alone
AGREE_PX = 0.1  # so well do the planes of a cube lie on each other
FULL_CARD = 72  # characters of a HISTORY card; a text of this length may go on in the next


class Hips(RemoteSurvey):
    """g r z cubes as the Legacy viewer's, or one plane of a radio survey, north up.

    A request a plane; a cube is made from three of them, as `legacy.decode_grz` reads it: NaN is what was not observed.
    A source that one of the planes does not cover is not covered, and the planes left are not asked for.
    """

    settings: HipsSurvey

    def identity(self) -> dict:
        """The HiPS, size and scale; the address does not decide the pixels."""
        settings = self.settings
        return {
            "kind": "hips2fits",
            "hips": dict(sorted(settings.hips.items())),
            "size_px": settings.size_px,
            "pixel_scale_arcsec": settings.pixel_scale_arcsec,
        }

    def requests_a_source(self) -> int:
        """One a plane."""
        return len(self.settings.hips)

    def bytes_a_source(self) -> int:
        """Of all planes."""
        return len(self.settings.hips) * super().bytes_a_source()

    def download(self, source: Source) -> tuple[bytes, str]:
        """Ask for each plane, and make one file; the address is the first plane's."""
        keys = [RADIO] if RADIO in self.settings.hips else list(BANDS)
        answers = [self._plane(key, source) for key in keys]
        if len(answers) == 1:
            return answers[0].content, answers[0].url
        body = _cube([answer.content for answer in answers], self.settings.hips, source)
        self.decode(body, source)
        return body, answers[0].url

    def decode(self, body: bytes, source: Source) -> Cutout:
        """Check bands, shape and coordinates against what was asked for."""
        size, scale = self.settings.size_px, self.settings.pixel_scale_arcsec
        if RADIO in self.settings.hips:
            return decode_plane(body, source, size, scale)
        cutout = decode_grz(body, source, shape=(size, size), pixel_scale_arcsec=scale)
        if not cutout.observed.any():
            raise NoCoverage("no pixel was observed in all of g, r and z")
        return cutout

    def _plane(self, key: str, source: Source) -> Answer:
        def check(answer: Answer) -> None:
            if answer.status_code == 200:
                self._check(answer, key, source)

        answer = self._client.request("GET", self.settings.url, check, params=self._asked(key, source))
        if answer.status_code != 200:
            raise self._refusal(answer, key)
        return answer

    def _asked(self, key: str, source: Source) -> dict[str, str]:
        size = self.settings.size_px
        asked = hips2fits.query(
            hips=self.settings.hips[key],
            width=size,
            height=size,
            projection="TAN",
            ra=Longitude(source.ra_deg, u.deg),
            dec=Latitude(source.dec_deg, u.deg),
            fov=Angle(size * self.settings.pixel_scale_arcsec, u.arcsec),
            format="fits",
            get_query_payload=True,
        )
        asked = {name: value for name, value in asked.items() if name not in FOR_PICTURES}
        # without exponents
        fixed = {
            "ra": f"{round(source.ra_deg, 7) % 360:.7f}",
            "dec": f"{source.dec_deg:.7f}",
            "fov": f"{asked['fov']:.10f}",
        }
        return {name: str(value) for name, value in (asked | fixed).items()}

    def _check(self, answer: Answer, key: str, source: Source) -> None:
        hips = self.settings.hips[key]
        try:
            decode_plane(answer.content, source, self.settings.size_px, self.settings.pixel_scale_arcsec)
        except NoCoverage as error:
            raise NoCoverage(f"the HiPS {hips} ({key}) has nothing there: {error.reason}") from error
        _check_name(answer.content, key, hips)

    def _refusal(self, answer: Answer, key: str) -> ConfigError | TransientError:
        hips = self.settings.hips[key]
        said, by_service = _said(answer.content)
        if answer.status_code in REFUSED and (by_service or hips in said):
            return ConfigError(
                f"hips.{key}: hips2fits refuses {hips!r} with HTTP {answer.status_code}: {said}. Correct the "
                "identifier; https://aladin.cds.unistra.fr/hips/list has them all."
            )
        return TransientError(f"HTTP {answer.status_code} from {answer.url}: {said}")


def _check_name(body: bytes, key: str, hips: str) -> None:
    """The service takes keywords too, and picks one of the HiPS that fit them, another one each time."""
    for line in read_fits(body)[1].get("HISTORY", []):
        served = str(line).removeprefix("From HiPS ").split()
        if not str(line).startswith("From HiPS ") or not served or len(line) >= FULL_CARD:
            continue
        if served[0].lower() != hips.removeprefix("ivo://").lower():
            raise ConfigError(
                f"hips.{key}: for {hips!r} hips2fits took {served[0]!r}. Give a whole identifier, such as this one; "
                "https://aladin.cds.unistra.fr/hips/list has them all."
            )


def _cube(bodies: list[bytes], hips: dict[str, str], source: Source) -> bytes:
    """Three planes as one FITS cube, as the Legacy viewer writes them."""
    planes, headers = zip(*map(read_fits, bodies), strict=True)
    centres = np.array([locate(header, source)[0] for header in headers])
    if np.ptp(centres, axis=0).max() > AGREE_PX:
        raise BadImage(f"the planes g, r and z that came do not lie on each other: {centres.round(2).tolist()}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cards = WCS(headers[0], naxis=2).celestial.to_header()
    shape = planes[0].shape[-2:]
    hdu = fits.PrimaryHDU(np.stack([plane.reshape(shape) for plane in planes]), cards)
    hdu.header.update({"BANDS": BANDS} | {f"BAND{number}": band for number, band in enumerate(BANDS)})
    for band in BANDS:
        hdu.header.add_history(f"{band} from HiPS {hips[band]}")
    stream = io.BytesIO()
    hdu.writeto(stream)
    return stream.getvalue()


def _said(body: bytes) -> tuple[str, bool]:
    """The words of an error, and whether it is in the service's own form: JSON with title and description."""
    text = body[:2000].decode("utf-8", "replace")
    try:
        told = json.loads(text)
        return in_short(
            ": ".join(str(told[part]) for part in ("title", "description") if part in told)
        ), "title" in told
    except (ValueError, TypeError, KeyError):
        return in_short(text), False
