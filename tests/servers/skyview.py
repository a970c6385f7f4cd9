"""A local server that speaks SkyView's form: the form, the page that answers it, and the file that it links to.

Where it has no images, it does as the real one: the page says "Error processing survey", or links to a file that was
never made and has the reason only among the settings in a script (astroquery#572), or the map is 0 all over.
The pages were written after those that astroquery keeps for its tests, and SkyView's classes Imager and HTMLWriter.
"""

import io
from typing import NamedTuple
from urllib.parse import urlencode

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from tests.servers import header
from tests.servers.base import Reply, SurveyServer, page

FORM_PATH, RUN_PATH, FILES = "/current/cgi/basicform.pl", "/current/cgi/runquery.pl", "/tempspace/fits/"
SURVEYS = {"Radio": ["GB6 (4850MHz)", "VLA FIRST (1.4 GHz)", "NVSS"], "Optical:DSS": ["DSS", "DSS1 Blue"]}
NO_CANDIDATES = "No candidate images were found in the region.  Position may be outside the coverage area."


class Sky(NamedTuple):
    """What there is to see: round stars (ra, dec, peak) on a faint pattern, inside a circle."""

    stars: tuple[tuple[float, float, float], ...]
    ra: float
    dec: float
    radius_arcsec: float = 3600.0
    sigma_arcsec: float = 4.0

    def image(self, cards: dict, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """(H, W) float32 on the grid of the WCS cards, and where it was observed."""
        rows, columns = np.indices(shape)
        ra, dec = WCS(fits.Header(cards)).wcs_pix2world(columns.ravel(), rows.ravel(), 0)
        values = 1e-3 * (1.5 + np.sin(9e4 * ra) * np.cos(7e4 * dec))
        for star_ra, star_dec, peak in self.stars:
            away = header.separations_arcsec(star_ra, star_dec, ra, dec)
            values = values + peak * np.exp(-0.5 * (away / self.sigma_arcsec) ** 2)
        observed = header.separations_arcsec(self.ra, self.dec, ra, dec) <= self.radius_arcsec
        return values.reshape(shape).astype(np.float32), observed.reshape(shape)


class SkyviewServer(SurveyServer):
    """`SkyviewServer(sky)` serves the sky under the name of each of the SURVEYS.

    `without` says what it does where it has no images: "error page", "dead link", "blank". `changes` are laid over the
    parameters before the image is made.
    """

    path = FORM_PATH

    def __init__(self, sky: Sky, port: int = 0, delay: float = 0.0):
        super().__init__(port, delay)
        self.sky, self.without = sky, "error page"
        self.changes: dict[str, str] = {}
        self.files: dict[str, bytes] = {}

    def answer(self, path: str, params: dict[str, str]) -> Reply:
        if path == FORM_PATH:
            return Reply(200, form().encode())
        if path == RUN_PATH:
            return self._run(params | self.changes)
        if path in self.files:
            return Reply(200, self.files[path], "application/octet-stream")
        return page("404 Not Found", 404)

    def _run(self, params: dict[str, str]) -> Reply:
        name = params.get("survey")
        if not any(name in names for names in SURVEYS.values()):
            return result("", "")
        if params.get("projection") != "Tan" or params.get("coordinates") != "J2000":
            return result(
                name, f"<h2> Error processing survey: {name}</h2><p>Error: this test server has Tan and J2000<p>"
            )
        body, any_observed = self._image(params)
        if not any_observed and self.without == "error page":
            return result(
                name, f"<h2> Error processing survey: {name}</h2><p>Error: Survey: {name} {NO_CANDIDATES}<p><p>"
            )
        link = f"{FILES}skv{len(self.files) + 1000}.fits"
        dead = not any_observed and self.without == "dead link"
        if not dead:
            self.files[link] = body
        setting = f"x['errormsg']='Survey: {name} {NO_CANDIDATES}'" if dead else "x['_meta_coverage']='All-sky'"
        links = (
            f"<span>Download <a href=../..{link}>FITS</a> or <a href=../..{link[:-5]}.jpg>quick look jpeg </a> image."
        )
        return result(name, f"<script language='javascript'>x = new Object()\n{setting}\n</script>{links}</span>")

    def _image(self, params: dict[str, str]) -> tuple[bytes, bool]:
        ra, dec = map(float, params["Position"].replace(",", " ").split())
        pixels = int(params["pixels"])
        step = float(params["size"]) / pixels
        cards = {
            "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": ra, "CRVAL2": dec, "CDELT1": -step, "CDELT2": step,
            "CRPIX1": (pixels + 1) / 2, "CRPIX2": (pixels + 1) / 2, "RADESYS": "FK5", "EQUINOX": 2000.0,
        }  # fmt: skip
        values, observed = self.sky.image(cards, (pixels, pixels))
        kind = np.float32 if params.get("float") == "on" else np.float64
        hdu = fits.PrimaryHDU((values * observed).astype(kind))
        hdu.header.update(cards | {"SURVEY": params["survey"], "BUNIT": "Jy/beam"})
        hdu.header["COMMENT"] = "Provenance: R. L. WhiteTABR. H. BeckerTABD. J. Helfand"
        hdu.header["HISTORY"] = urlencode(params)[:60]
        stream = io.BytesIO()
        hdu.writeto(stream)
        return stream.getvalue().replace(b"TAB", b"\t  "), bool(observed.any())


def form() -> str:
    """Upper-case tags and attributes, unquoted values, two fields of one name, as there."""
    lists = "".join(
        f"<label for='{name}'><b>{name}</b>:</label><br>"
        f"<select class='selectbox' multiple size=7 NAME='survey' id='{name}'>"
        + "".join(f"<option>{survey}</option>" for survey in surveys)
        + "</select>"
        for name, surveys in SURVEYS.items()
    )
    return (
        "<html><body><form name='query' action='runquery.pl' method='GET' target='skyview_out'>"
        f"<input type='text' name='Position' size=40>{lists}"
        "<select name='coordinates' id='csys'> <option value='_skip_'>Special<option selected>J2000</option>"
        "<option>ICRS</option></select><input type='text' name='coordinates' value='' SIZE=6>"
        "<select name='projection'> <option selected value='Tan'>Tan</option><option value='Car'>(Car)</option>"
        "</select><input type='text' name='pixels' Value='300' SIZE=11><input type='text' name='size' SIZE=10>"
        "<input type=checkbox name='float' id='float' checked><input TYPE='submit' Value='Submit Request'>"
        "<select name='Sampler'> <OPTION value='_skip_' selected>Default (usually NN)<OPTION value='LI'>LI</select>"
        "<input type='radio' name='lut' value='colortables/b-w-linear.bin'  checked>"
        "<select NAME='survey' id='overlay_red'> <OPTION selected value='_skip_'>None <option>NVSS</option></select>"
        "</form></body></html>"
    )


def result(name: str, text: str) -> Reply:
    """The page around an answer."""
    return Reply(
        200,
        f"<html><head><title>SkyView images</title><script src='img.js'></script></head><body><h1>{name}</h1>{text}"
        "<hr>SkyView has been developed with support from NASA</body></html>".encode(),
    )
