"""Whatever bytes a server sends, a source gets an image or a reason; nothing else is ever raised."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from galgaze import status
from galgaze.config import DirectorySurvey, OpticalPreparation, RadioPreparation
from galgaze.errors import BadImage, NoCoverage
from galgaze.images.preparation import prepare
from galgaze.surveys.base import Source
from galgaze.surveys.fits_images import whole_headers
from tests.surveys.bodies import DEC, RA, decoder, first_fits, first_settings, galaxy, legacy_fits, legacy_settings

SOURCE = Source("a", RA, DEC)
QUICK = settings(max_examples=120, deadline=None)


def picture(kind):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 24, 3), np.uint8)).save(stream, kind)
    return stream.getvalue()


SURVEYS = {
    "legacy": (decoder(legacy_settings(size_px=16)), OpticalPreparation(field_of_view_arcsec=4, size_px=16)),
    "legacy_all": (
        decoder(legacy_settings(size_px=16, layer="ls-dr10", bands="griz", invvar=True, maskbits=True)),
        OpticalPreparation(field_of_view_arcsec=4, size_px=16),
    ),
    "first": (decoder(first_settings("http://127.0.0.1:9", size_px=33)), RadioPreparation(size_px=30)),
    "directory": (
        decoder(DirectorySurvey(kind="directory", path=".")),
        OpticalPreparation(field_of_view_arcsec=4, size_px=16),
    ),
}
BODIES = {
    "legacy": [legacy_fits(galaxy(16))],
    "legacy_all": [
        legacy_fits(
            galaxy(16, bands=4),
            bands="griz",
            invvar=np.ones((4, 16, 16), np.float32),
            maskbits=np.zeros((16, 16), np.int32),
        )
    ],
    "first": [first_fits(galaxy(33, bands=1)[0])],
    "directory": [picture("PNG"), picture("JPEG"), legacy_fits(galaxy(16))],
}


def outcome(kind, body):
    """The status, or the reason of a refusal."""
    survey, preparation = SURVEYS[kind]
    try:
        cutout = survey.decode(body, SOURCE)
    except (BadImage, NoCoverage) as error:
        return error.reason
    prepared = prepare(cutout, preparation)
    assert prepared.status in status.STATUSES
    assert prepared.pixels.dtype == np.uint8
    assert np.isfinite(prepared.coverage)
    assert np.isfinite(cutout.pixels).all()
    return prepared.status


@pytest.mark.parametrize("kind", SURVEYS)
def test_good(kind):
    assert {outcome(kind, body) for body in BODIES[kind]} == {status.OK}


@pytest.mark.parametrize("kind", SURVEYS)
@QUICK
@given(data=st.data())
def test_any_bytes(kind, data):
    start = data.draw(st.sampled_from([b"", b"SIMPLE", b"SIMPLE  =                    T", b"\xff\xd8", b"\x89PNG\r\n"]))
    assert outcome(kind, start + data.draw(st.binary(max_size=300))) != status.OK


@pytest.mark.parametrize("kind", SURVEYS)
@QUICK
@given(data=st.data())
def test_changed_bytes(kind, data):
    body = bytearray(BODIES[kind][data.draw(st.integers(0, len(BODIES[kind]) - 1))])
    where = st.integers(0, len(body) - 1) if kind == "legacy_all" else st.integers(0, min(len(body), 3000) - 1)
    for place, value in data.draw(st.lists(st.tuples(where, st.integers(0, 255)), min_size=1, max_size=6)):
        body[place] = value
    assert 0 < len(outcome(kind, bytes(body))) < 400


@pytest.mark.parametrize("kind", ["legacy", "legacy_all", "first"])
@QUICK
@given(data=st.data())
def test_changed_cards(kind, data):
    """A header's numbers are anything at all."""
    body = BODIES[kind][0]
    cards = ["BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "CRVAL1", "CRVAL2", "CRPIX1", "CDELT1", "CTYPE1", "BANDS"]
    cards += ["IMAGETYP", "XTENSION", "PCOUNT", "GCOUNT"]
    for card in data.draw(st.lists(st.sampled_from(cards), min_size=1, max_size=3)):
        places = [at for at in range(0, len(body), 80) if body.startswith(f"{card:8}=".encode(), at)]
        if not places:
            continue
        at = data.draw(st.sampled_from(places))
        value = data.draw(st.sampled_from(VALUES))
        body = body[:at] + f"{card:8}= {value:>20}".encode() + body[at + 30 :]
    assert 0 < len(outcome(kind, body)) < 400


VALUES = [
    "0", "-1", "1", "2", "999", "-32", "-64", "16", "3.5", "T", "'text'", "1E400", "NaN", "INF", "99999999999999999999",
    "4294967296", "-9223372036854775808", "'RA---SIP'", "''", "",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["legacy", "first", "directory"])
@pytest.mark.parametrize("value", [0, np.nan, np.inf, -np.inf, 1e30, -1e30, 0.25])
def test_poison(kind, value):
    """A whole image of one value has no prediction, whatever the value."""
    pixels = np.full((3, 16, 16) if kind != "first" else (33, 33), value, np.float32)
    found = outcome(kind, legacy_fits(pixels) if kind != "first" else first_fits(pixels))
    assert found != status.OK
    if kind == "first" and (value == 0 or np.isnan(value)):
        assert found == "blank: the edge of the survey's map, or not observed"
    elif value == 0 or np.isnan(value):
        assert found == status.NO_COVERAGE
    else:
        assert "constant" in found or "infinite or absurd" in found


def test_other_hdus_are_not_read():
    """What follows the image, such as more extensions or rubbish, does not count where it was not asked for."""
    assert outcome("legacy", BODIES["legacy"][0] + b"rubbish" * 5000) == status.OK
    assert outcome("legacy_all", BODIES["legacy_all"][0] + b"rubbish" * 5000) == status.OK
    assert outcome("legacy", BODIES["legacy"][0] + b"XTENSION= 'IMAGE   '" + bytes(5000)) == status.OK


def test_a_chain_of_hdus_ends():
    """A body may announce HDUs without end; few of them are looked at."""
    empty = b"".join(card.ljust(80) for card in (b"XTENSION= 'IMAGE   '", b"BITPIX  = 8", b"NAXIS   = 0", b"END"))
    body = legacy_fits(galaxy(16, bands=4), bands="griz") + empty.ljust(2880) * 2000
    assert "no HDU INVVAR and MASKBITS came" in outcome("legacy_all", body)
    assert len(whole_headers(body)) == 8
