"""The user's own files: by id, never outside the folder, and read with suspicion."""

import gzip
import io
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.surveys.bodies import DEC, RA, first_fits, galaxy, legacy_fits, no_overlap_fits

from galgaze import status
from galgaze.config import DirectorySurvey, OpticalPreparation, RadioPreparation
from galgaze.errors import BadImage, ConfigError, NoCoverage
from galgaze.fields import safe_name
from galgaze.images.preparation import prepare
from galgaze.surveys import directory
from galgaze.surveys.base import Source
from galgaze.surveys.registry import open_survey


def survey_of(folder, **changes):
    return open_survey(DirectorySurvey(kind="directory", path=str(folder), **changes))


def source(name):
    return Source(name, RA, DEC)


def got(folder, name, **changes):
    survey = survey_of(folder, **changes)
    return survey.decode(survey.download(source(name))[0], source(name))


def picture(kind, mode="RGB", size=(30, 20)):
    """Left to right darker, and a white mark in the upper left corner."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8) + np.linspace(200, 50, size[0], dtype=np.uint8)[:, None]
    pixels[:4, :4] = 255
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind)
    return stream.getvalue()


def test_fits_by_id(tmp_path):
    (tmp_path / "a.fits").write_bytes(legacy_fits())
    (tmp_path / "b.fits.gz").write_bytes(gzip.compress(legacy_fits()))
    for name in "ab":
        cutout = got(tmp_path, name)
        assert np.array_equal(cutout.pixels, galaxy())
        assert (cutout.bands, cutout.rendered) == ("grz", False)


def test_a_radio_map_by_id(tmp_path):
    (tmp_path / "a.fits").write_bytes(first_fits())
    cutout = got(tmp_path, "a")
    assert (cutout.bands, cutout.pixels.shape) == ("", (1, 40, 40))
    assert cutout.pixel_scale_arcsec == pytest.approx(1.8)


@pytest.mark.parametrize("kind", ["jpg", "jpeg", "png"])
def test_pictures_by_id(tmp_path, kind):
    (tmp_path / f"a.{kind}").write_bytes(picture("PNG" if kind == "png" else "JPEG"))
    cutout = got(tmp_path, "a", pixel_scale_arcsec=0.5)
    assert (cutout.pixels.shape, cutout.rendered, cutout.bands) == ((3, 20, 30), True, "rgb")
    assert cutout.pixels[:, -1, 0].min() > 240, "the picture's upper left is the last row: north is up"
    assert cutout.centre_px == (14.5, 9.5)
    assert cutout.jacobian_arcsec == pytest.approx(np.diag([-0.5, 0.5]))
    assert cutout.observed.all()


def test_unknown_scale_is_nan_and_the_picture_is_taken_whole(tmp_path):
    (tmp_path / "a.png").write_bytes(picture("PNG"))
    cutout = got(tmp_path, "a")
    assert np.isnan(cutout.jacobian_arcsec).all()
    assert np.isnan(cutout.pixel_scale_arcsec)
    prepared = prepare(cutout, OpticalPreparation(size_px=30, min_coverage=0.6))
    assert prepared.status == status.OK
    assert np.isnan(prepared.jacobian_arcsec).all()
    assert prepared.coverage == pytest.approx(20 / 30, abs=0.04)
    assert prepared.pixels.shape == (3, 30, 30)
    assert not prepared.pixels[:, :4].any(), "what is beside a picture that is not square is blank"


def test_grey_pictures_serve_as_radio_maps(tmp_path):
    (tmp_path / "a.png").write_bytes(picture("PNG", "L", (30, 30)))
    prepared = prepare(got(tmp_path, "a"), RadioPreparation(size_px=30))
    assert (prepared.status, prepared.pixels.shape, prepared.pixels.max()) == (status.OK, (1, 30, 30), 255)


def test_missing(tmp_path):
    with pytest.raises(NoCoverage, match=r"no file a with ending .fits, .fits.gz, .jpg, .jpeg, .png"):
        survey_of(tmp_path).download(source("a"))
    with pytest.raises(ConfigError, match=r"the folder '.*nowhere' of a `directory` survey does not exist"):
        survey_of(tmp_path / "nowhere")


HOSTILE = ["../secret", "..", "/etc/passwd", "a/../../secret", "sub/secret", "x" * 200, "ö/é", "a\\b", "CON"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_ids_stay_inside(tmp_path, name):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path, folder / "sub"):
        (place / "secret.fits").write_bytes(legacy_fits())
    with pytest.raises(NoCoverage, match="no file id-"):
        survey_of(folder).download(source(name))
    (folder / f"{safe_name(name)}.fits").write_bytes(legacy_fits())
    body, path = survey_of(folder).download(source(name))
    assert body == legacy_fits()
    assert path == f"{folder}/{safe_name(name)}.fits"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=st.text(min_size=1, max_size=220))
def test_no_id_reads_outside(tmp_path, name):
    with pytest.raises(NoCoverage):
        survey_of(tmp_path).download(source(name))


def damaged():
    packed = gzip.compress(legacy_fits())
    flipped = packed[:200] + bytes(byte ^ 255 for byte in packed[200:300]) + packed[300:]
    jpeg = picture("JPEG")
    return {
        "empty.jpg": (b"", "unreadable picture"),
        "empty.fits": (b"", "unreadable picture"),
        "empty.fits.gz": (b"", "unreadable picture"),
        "text.jpg": (b"no picture at all", "unreadable picture: cannot identify"),
        "broken.jpg": (jpeg[: len(jpeg) // 2], "(?i)unreadable picture: .*truncated"),
        "broken.png": (picture("PNG")[:-40], "unreadable picture"),
        "deep.png": (picture("PNG", "I;16"), "more than 8 bits"),
        "other.jpg": (picture("GIF"), "unreadable picture: cannot identify"),
        "script.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unreadable picture: cannot identify"),
        "short.fits": (legacy_fits()[:9000], "truncated: 9000 bytes"),
        "short.fits.gz": (packed[:9000], r"short.fits.gz: cannot be read"),
        "flipped.fits.gz": (flipped, "flipped.fits.gz: cannot be read|truncated|not a FITS"),
        "plain.fits.gz": (legacy_fits(), "plain.fits.gz: cannot be read: Not a gzipped file"),
        "griz.fits": (legacy_fits(galaxy(bands=4), bands="griz"), "bands 'griz' came, 'grz' were asked for"),
        "blank.fits": (first_fits(np.zeros((40, 40), np.float32)), "blank: the edge"),
        "far.fits": (legacy_fits(ra=RA + 1), "off the centre"),
    }  # fmt: skip


@pytest.mark.parametrize("name", damaged())
def test_damaged(tmp_path, name):
    body, reason = damaged()[name]
    (tmp_path / name).write_bytes(body)
    with pytest.raises(BadImage, match=reason):
        survey_of(tmp_path).download(source(name.split(".")[0]))


def test_no_overlap(tmp_path):
    (tmp_path / "a.fits").write_bytes(no_overlap_fits())
    with pytest.raises(NoCoverage, match="OVERLAP"):
        survey_of(tmp_path).download(source("a"))


def test_a_deflate_error_is_a_bad_image(tmp_path, monkeypatch):
    def fail(*_):
        raise zlib.error("invalid distance")

    (tmp_path / "a.fits.gz").write_bytes(gzip.compress(b""))
    monkeypatch.setattr(gzip.GzipFile, "read", fail)
    with pytest.raises(BadImage, match="invalid distance"):
        survey_of(tmp_path).download(source("a"))


@pytest.mark.parametrize("suffix", [".fits.gz", ".fits"])
def test_bombs(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(directory, "MAX_BYTES", 1_000_000)
    content = bytes(3_000_000)
    (tmp_path / f"a{suffix}").write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    with pytest.raises(BadImage, match=f"a{suffix}: has more than 1000000 bytes"):
        survey_of(tmp_path).download(source("a"))


def test_a_picture_of_too_many_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    (tmp_path / "a.png").write_bytes(picture("PNG"))
    with pytest.raises(BadImage, match="decompression bomb"):
        got(tmp_path, "a")


def test_identity_tells_scales_apart(tmp_path):
    identities = [survey_of(tmp_path, pixel_scale_arcsec=scale).identity() for scale in (None, 0.3)]
    assert identities[0] != identities[1]
