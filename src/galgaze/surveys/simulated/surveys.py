"""The simulated twins behind the survey interface: they serve FITS bytes that pass the same checks."""

import io

import numpy as np
from astropy.io import fits

from galgaze.config import SimulatedFirstSurvey, SimulatedLegacySurvey
from galgaze.surveys.base import Cutout, Source, Survey
from galgaze.surveys.first import PIXEL_SCALE_ARCSEC, decode_first
from galgaze.surveys.legacy import BANDS, decode_grz
from galgaze.surveys.simulated import optical, radio

BODY_VERSION = 3  # of the FITS files made here from the simulated sky
FAINT = np.float32(1e-12)  # stands for 0, which in a survey's file means "not observed"


class SimulatedLegacy(Survey):
    """Twin of `legacy`: g r z, nanomaggies."""

    settings: SimulatedLegacySurvey

    def identity(self) -> dict:
        """Seed, size, scale and the version of the simulated sky."""
        return {**self.settings.model_dump(), "sky_version": optical.SKY_VERSION, "body_version": BODY_VERSION}

    def truth(self, source_id: str) -> dict:
        """Every parameter drawn for a source, and the bar's length in the pixels of the image."""
        truth = self._drawn(source_id)
        length, scale = truth["bar_length_arcsec"], self.settings.pixel_scale_arcsec
        return truth | {"bar_length_px": None if length is None else round(length / scale, 6)}

    def _drawn(self, source_id: str) -> dict:
        settings = self.settings
        return optical.optical_truth(settings.seed, source_id, settings.mix, settings.artefact_fraction)

    def download(self, source: Source) -> tuple[bytes, str]:
        """Draw one galaxy; see `Survey.download`."""
        size, scale = self.settings.size_px, self.settings.pixel_scale_arcsec
        truth = self._drawn(source.source_id)
        pixels = optical.draw_optical(truth, self.settings.seed, source.source_id, size, scale)
        cards = {"SURVEY": "simulated", "VERSION": f"sky {optical.SKY_VERSION}", "IMAGETYP": "image", "BANDS": BANDS}
        cards |= {f"BAND{index}": band for index, band in enumerate(BANDS)}
        body = _to_fits(pixels, source, scale, cards)
        self.decode(body, source)
        return body, f"simulated_legacy:{self.settings.seed}/{source.source_id}"

    def decode(self, body: bytes, source: Source) -> Cutout:
        """As for `legacy`."""
        size = self.settings.size_px
        return decode_grz(body, source, (size, size), self.settings.pixel_scale_arcsec)


class SimulatedFirst(Survey):
    """Twin of `first`: 1.4 GHz, Jy/beam."""

    settings: SimulatedFirstSurvey

    def identity(self) -> dict:
        """Seed, size and the version of the simulated sky."""
        return {**self.settings.model_dump(), "sky_version": radio.SKY_VERSION, "body_version": BODY_VERSION}

    def truth(self, source_id: str) -> dict:
        """Every parameter drawn for a source."""
        return radio.radio_truth(self.settings.seed, source_id, self.settings.mix)

    def download(self, source: Source) -> tuple[bytes, str]:
        """Draw one radio source; see `Survey.download`."""
        pixels = radio.draw_radio(
            self.settings.seed, source.source_id, self.settings.size_px, PIXEL_SCALE_ARCSEC, self.settings.mix
        )
        cards = {"SURVEY": "simulated", "VERSION": f"sky {radio.SKY_VERSION}", "BUNIT": "JY/BEAM"}
        body = _to_fits(np.where(pixels == 0, FAINT, pixels), source, PIXEL_SCALE_ARCSEC, cards)
        self.decode(body, source)
        return body, f"simulated_first:{self.settings.seed}/{source.source_id}"

    def decode(self, body: bytes, source: Source) -> Cutout:
        """As for `first`."""
        return decode_first(body, source, self.settings.size_px)


def _to_fits(pixels: np.ndarray, source: Source, pixel_scale_arcsec: float, cards: dict) -> bytes:
    """A FITS file with the header that the services write: tangent plane, north up, centred."""
    header = fits.Header()
    header.update(cards)
    height, width = pixels.shape[-2:]
    header.update(
        CTYPE1="RA---TAN",
        CTYPE2="DEC--TAN",
        CRVAL1=source.ra_deg,
        CRVAL2=source.dec_deg,
        CRPIX1=(width + 1) / 2,
        CRPIX2=(height + 1) / 2,
        CD1_1=-pixel_scale_arcsec / 3600,
        CD1_2=0.0,
        CD2_1=0.0,
        CD2_2=pixel_scale_arcsec / 3600,
    )
    buffer = io.BytesIO()
    fits.PrimaryHDU(pixels.astype(">f4"), header).writeto(buffer)
    return buffer.getvalue()
