"""Small images as the surveys serve them, made here."""

import io

import numpy as np
from astropy.io import fits

from galgaze.config import FirstSurvey, HttpSettings, LegacySurvey
from galgaze.surveys.registry import open_survey

NOWHERE = "/nonexistent"  # for what must not ask anybody
QUICK = HttpSettings(attempts=2, backoff_s=0, pause_s=0, timeout_s=20, give_up_after=3)
RA, DEC = 150.0, 2.0
SCALE = 0.262


def legacy_settings(url="http://127.0.0.1:9", **changes) -> LegacySurvey:
    near = {"probe_ra_deg": RA, "probe_dec_deg": DEC}
    return LegacySurvey(**{"kind": "legacy", "url": url, "size_px": 40, "http": QUICK} | near | changes)


def first_settings(*urls, **changes) -> FirstSurvey:
    return FirstSurvey(**{"kind": "first", "urls": list(urls), "size_px": 40, "http": QUICK} | changes)


def decoder(settings):
    """A survey that can decode, and ask nobody."""
    return open_survey(settings, hosts=NOWHERE, cache=NOWHERE)


def star(size, column, row, sigma_px=2.0, flux=1.0):
    """A round star at a place in pixels (0-based), peak `flux`."""
    rows, columns = np.indices((size, size))
    return flux * np.exp(-((columns - column) ** 2 + (rows - row) ** 2) / (2 * sigma_px**2))


def galaxy(size=40, seed=1, bands=3, noise=0.01):
    """A blob in the middle and noise, float32 (bands, size, size); nowhere exactly 0."""
    rng = np.random.default_rng(seed)
    middle = (size - 1) / 2
    blob = star(size, middle, middle, size / 10, 0.5) * np.arange(1, bands + 1)[:, None, None]
    return (blob + rng.normal(0, noise, (bands, size, size))).astype(np.float32)


def legacy_fits(pixels=None, ra=RA, dec=DEC, scale=SCALE, bands="grz", invvar=None, maskbits=None, **cards) -> bytes:
    pixels = galaxy() if pixels is None else pixels
    cards = {"IMAGETYP": "IMAGE", "BANDS": bands, **_tangent(pixels.shape, ra, dec, scale, "TAN"), **cards}
    return _fits(pixels, cards, {"INVVAR": invvar, "MASKBITS": maskbits})


def first_fits(pixels=None, ra=RA, dec=DEC, scale=1.8, **cards) -> bytes:
    """With cards of four axes for two, and a tab, as the servers write them."""
    pixels = galaxy(bands=1)[0] * 0.01 if pixels is None else pixels
    other = {"CTYPE3": "FREQ", "CRVAL3": 1.4e9, "CDELT3": 1.0, "CRPIX3": 1.0, "CTYPE4": "STOKES", "CRVAL4": 1.0}
    text = {"COMMENT": "R. L. White TAB M.D. Gregg", "BUNIT": "JY/BEAM"}
    body = _fits(pixels, {**_tangent(pixels.shape, ra, dec, scale, "SIN"), **other, **text, **cards})
    return body.replace(b"TAB", b"\t  ")


def no_overlap_fits() -> bytes:
    return _fits(None, {"OVERLAP": False})


def _tangent(shape, ra, dec, scale, projection):
    return {
        "CTYPE1": f"RA---{projection}", "CTYPE2": f"DEC--{projection}", "CRVAL1": ra, "CRVAL2": dec,
        "CRPIX1": (shape[-1] + 1) / 2, "CRPIX2": (shape[-2] + 1) / 2,
        "CDELT1": -scale / 3600, "CDELT2": scale / 3600,
    }  # fmt: skip


def _fits(pixels, cards, extras=None) -> bytes:
    hdus = fits.HDUList([fits.PrimaryHDU(None if pixels is None else np.asarray(pixels))])
    hdus[0].header.update(cards)
    for kind, data in (extras or {}).items():
        if data is not None:
            hdus.append(fits.ImageHDU(data))
            hdus[-1].header.update(cards | {"IMAGETYP": kind})
    stream = io.BytesIO()
    hdus.writeto(stream)
    return stream.getvalue()
