"""From cutout to network input: colours, positions, coverage, and the published radio images."""

import gzip
import io
import os
from pathlib import Path

import httpx
import numpy as np
import pytest
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.real_data import unpacked_mirabest
from tests.servers import header
from tests.servers.legacy import LegacyServer, colours
from tests.surveys.bodies import DEC, RA, SCALE, first_fits, galaxy, legacy_fits, legacy_settings, star

from galgaze import status
from galgaze.config import DirectorySurvey, OpticalPreparation, RadioPreparation, SimulatedLegacySurvey
from galgaze.images.datasets import read_array_pickle
from galgaze.images.preparation import crop, preparation_identity, prepare, resample, store_name, viewer_composite
from galgaze.surveys.base import Cutout, Source
from galgaze.surveys.first import decode_first
from galgaze.surveys.fits_images import read_fits
from galgaze.surveys.registry import open_survey


def cutout_of(pixels, observed=None, centre=None, scale=SCALE, bands="grz", rendered=False):
    height, width = pixels.shape[1:]
    observed = np.ones((height, width), bool) if observed is None else observed
    centre = ((width - 1) / 2, (height - 1) / 2) if centre is None else centre
    return Cutout(pixels, bands, rendered, observed, centre, np.diag([-scale, scale]))


def real_folder(path):
    root = os.environ.get("GALGAZE_TEST_DATA")
    if not root:
        pytest.skip(f"GALGAZE_TEST_DATA (a folder with {path}) is not set")
    return Path(root, path)


# ---------------------------------------------------------------------------------------------- colours


def test_composite_is_the_viewers():
    fluxes = np.random.default_rng(1).normal(0.1, 0.3, (3, 30, 30)).astype(np.float32)
    ours = np.round(viewer_composite(fluxes) * 255).astype(int)
    theirs = colours(dict(zip("grz", fluxes, strict=True)))[::-1].transpose(2, 0, 1).astype(int)
    assert np.abs(ours - theirs).max() <= 1
    assert np.ptp(ours) == 255
    black = viewer_composite(np.full((3, 2, 2), -0.03 / 2.2, np.float32))
    assert np.isfinite(black).all()


def as_png(body):
    """The viewer's picture of a FITS body, without the losses of JPEG."""
    stream = io.BytesIO()
    Image.fromarray(colours(dict(zip("grz", read_fits(body)[0], strict=True)))).save(stream, "PNG")
    return stream.getvalue()


def compare(folder, places, size, scale, preparation):
    """How the pictures of the same places differ from FITS: the viewer's own pixels, and its JPEG.

    One row a place: mean absolute difference (of 255) and correlation without JPEG's losses; the same with
    them; and the mean difference of JPEG.
    """
    pictures = open_survey(DirectorySurvey(kind="directory", path=str(folder), pixel_scale_arcsec=scale))
    found = []
    with LegacyServer(folder, places) as server:
        survey = open_survey(legacy_settings(server.url, size_px=size, pixel_scale_arcsec=scale))
        for name, (ra, dec) in places.items():
            source = Source(name, ra, dec)
            body, url = survey.download(source)
            bodies = [as_png(body), httpx.get(url.replace("cutout.fits", "cutout.jpg")).content]
            prepared = [prepare(survey.decode(body, source), preparation)]
            prepared += [prepare(pictures.decode(picture, source), preparation) for picture in bodies]
            assert {one.status for one in prepared} == {status.OK}
            assert prepared[0].jacobian_arcsec == pytest.approx(prepared[2].jacobian_arcsec, abs=1e-4)
            ours, png, jpeg = (one.pixels.astype(float) for one in prepared)
            row = []
            for other in (png, jpeg):
                row += [np.abs(ours - other).mean(), np.corrcoef(ours.ravel(), other.ravel())[0, 1]]
            found.append([*row, (ours - jpeg).mean()])
        survey.close()
    print("\nPNG: mean |difference|, correlation; JPEG: the same, mean difference\n", np.round(found, 4))
    return np.array(found).T


def check_pictures(found):
    png, png_correlation, jpeg, jpeg_correlation, bias = found
    assert png.max() < 0.3, "rounding to whole numbers before or after resampling"
    assert png_correlation.min() > 0.9999
    # JPEG blurs the colours of noise, for the networks a noise of some units of 255, and shifts nothing
    assert jpeg.max() < 5  # where the sky is noisy
    assert jpeg_correlation.min() > 0.98  # a faint galaxy in much noise has 0.983, a bright one 0.998
    assert np.abs(bias).max() < 0.1


def test_fits_and_pictures_agree_on_simulated_galaxies(tmp_path):
    survey = open_survey(SimulatedLegacySurvey(kind="simulated_legacy", size_px=128))
    places = {}
    for n in range(4):
        places[f"{n}.fits"] = (150.0 + n, 2.0)
        (tmp_path / f"{n}.fits").write_bytes(survey.download(Source(f"g{n}", 150.0 + n, 2.0))[0])
    preparation = OpticalPreparation(field_of_view_arcsec=128 * SCALE, size_px=64)
    check_pictures(compare(tmp_path, places, 128, SCALE, preparation))


def test_fits_and_pictures_agree_on_real_galaxies():
    names = ["example_a.fits", "example_b.fits", "example_d.fits", "temp_small.fits"]
    places = {name: (150.0 + n, 2.0) for n, name in enumerate(names)}
    preparation = OpticalPreparation(field_of_view_arcsec=30, size_px=64)
    check_pictures(compare(real_folder("decals/fits"), places, 150, 0.2, preparation))


# ----------------------------------------------------------------------------------------------- places


def centroid(image, expected, reach):
    """Centre of light around a place (column, row), above the background."""
    rows, columns = np.indices(image.shape)
    near = np.hypot(columns - expected[0], rows - expected[1]) < reach
    light = np.where(near, image - np.median(image[~near]), 0).astype(float)
    return np.array([(light * columns).sum(), (light * rows).sum()]) / light.sum()


def offset_arcsec(source, ra, dec):
    """East and north of a source, small angles."""
    return np.array([(ra - source.ra_deg) * np.cos(np.radians(source.dec_deg)), dec - source.dec_deg]) * 3600


def predicted(prepared, offset):
    return np.array(prepared.centre_px) + np.linalg.inv(prepared.jacobian_arcsec) @ offset


@pytest.mark.parametrize("served", [0.1, 0.262, 0.4])
@pytest.mark.parametrize("size_px", [32, 75, 130])
@pytest.mark.parametrize("place", [(86.3, 61.8), (40.0, 90.25)])
def test_a_star_of_known_position(tmp_path, served, size_px, place):
    """After the service's resampling and ours, the star is where centre and Jacobian say."""
    size, sigma = 128, 5.0
    noise = np.random.default_rng(2).normal(0, 1e-5, (3, size, size))
    body = legacy_fits((0.02 * star(size, *place, sigma) + noise).astype(np.float32))
    (tmp_path / "a.fits").write_bytes(body)
    ra, dec = header.celestial_wcs(header.parse_header(body)[0]).wcs_pix2world([place], 0)[0]
    source = Source("a", RA + 1.7 * SCALE / 3600, DEC - 2.3 * SCALE / 3600)  # the galaxy's position is its own
    field_of_view = 24.0
    with LegacyServer(tmp_path) as server:
        survey = open_survey(legacy_settings(server.url, size_px=int(26 / served), pixel_scale_arcsec=served))
        cutout = survey.decode(survey.download(source)[0], source)
        survey.close()
    prepared = prepare(cutout, OpticalPreparation(field_of_view_arcsec=field_of_view, size_px=size_px))
    assert prepared.status == status.OK
    assert prepared.pixels.shape == (3, size_px, size_px)
    step = field_of_view / size_px
    assert prepared.jacobian_arcsec == pytest.approx(np.diag([-step, step]), abs=1e-5)
    expected = predicted(prepared, offset_arcsec(source, ra, dec))
    measured = centroid(prepared.pixels.sum(axis=0), expected, 4 * sigma * SCALE / step)
    assert measured == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.5, -0.5), (-12.3, 7.7)])
@pytest.mark.parametrize("side", [120, 121])
def test_a_radio_source_of_known_position(shift, side):
    place = (75.2, 48.6)
    noise = np.random.default_rng(3).normal(0, 1e-4, (side, side))
    body = first_fits((0.1 * star(side, *place, 2.0) + noise).astype(np.float32))
    pixel = header.celestial_wcs(header.parse_header(body)[0])
    ra, dec = pixel.wcs_pix2world([place], 0)[0]
    middle = (side - 1) / 2
    centre = pixel.wcs_pix2world([[middle + shift[0], middle + shift[1]]], 0)[0]
    source = Source("a", *map(float, centre))
    prepared = prepare(decode_first(body, source), RadioPreparation(size_px=80))
    assert np.abs(np.array(prepared.centre_px) - 39.5).max() <= 0.5 + 1e-4
    expected = predicted(prepared, offset_arcsec(source, ra, dec))
    assert centroid(prepared.pixels[0], expected, 10) == pytest.approx(expected, abs=0.1)


# ------------------------------------------------------------------------------------------- resampling


def test_step_one_is_the_identity():
    pixels = np.random.default_rng(4).random((3, 21, 21)).astype(np.float32)
    assert resample(pixels, (10, 10), 1.0, 21) == pytest.approx(pixels, abs=1e-6)
    assert resample(pixels, (10, 10), 1.0, 11) == pytest.approx(pixels[:, 5:16, 5:16], abs=1e-6)


@pytest.mark.parametrize("step", [1.5, 2.0, 3.0])
def test_the_mean_level_is_kept(step):
    side = 120
    blob = star(side, 61.3, 57.9, 6.0)[None].astype(np.float32)
    small = resample(blob, ((side - 1) / 2,) * 2, step, int(side / step))
    assert small.mean() == pytest.approx(blob.mean(), rel=1e-3)
    flat = resample(np.ones((1, side, side), np.float32), (59.5, 59.5), step, int(side / step))
    assert flat == pytest.approx(np.ones_like(flat), abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(
    column=st.floats(-5, 45), row=st.floats(-5, 45), step=st.floats(0.2, 3), size=st.integers(2, 30),
)  # fmt: skip
def test_any_centre(column, row, step, size):
    """A plane stays a plane under linear interpolation and symmetric smoothing; outside stands 0."""
    rows, columns = np.indices((40, 40)).astype(np.float32)
    out = resample(np.stack([columns + 100, rows + 100]), (column, row), step, size)
    at = (np.arange(size) - (size - 1) / 2) * step
    expected_columns, expected_rows = np.meshgrid(column + at, row + at)
    edge = 3 * max(0, (step - 1) / 2) + 1  # as far as the smoothing reaches
    inside = np.ones((size, size), bool)
    for expected in (expected_columns, expected_rows):
        inside &= (expected >= edge) & (expected <= 39 - edge)
    assert out[0][inside] == pytest.approx(expected_columns[inside] + 100, abs=1e-2)
    assert out[1][inside] == pytest.approx(expected_rows[inside] + 100, abs=1e-2)
    low, high = np.minimum(expected_columns, expected_rows), np.maximum(expected_columns, expected_rows)
    outside = (low < -1.001) | (high > 40.001)
    assert not out[:, outside].any()


@settings(max_examples=50, deadline=None)
@given(column=st.floats(-60, 90), row=st.floats(-60, 90), size=st.integers(1, 50))
def test_crop(column, row, size):
    plane = np.arange(1, 31 * 29 + 1).reshape(31, 29)
    image, centre = crop(plane, (column, row), size)
    assert image.shape == (size, size)
    assert np.abs(np.array(centre) - (size - 1) / 2).max() <= 0.5 + 1e-9
    first_column, first_row = round(column - centre[0]), round(row - centre[1])
    for r in range(0, size, 7):
        for c in range(0, size, 7):
            y, x = first_row + r, first_column + c
            assert image[r, c] == (plane[y, x] if 0 <= y < 31 and 0 <= x < 29 else 0)


# --------------------------------------------------------------------------------------------- coverage


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_coverage_of_partly_blank_images(share):
    pixels, blank = galaxy(80), round(80 * (1 - share))
    observed = np.ones((80, 80), bool)
    observed[:, :blank] = False
    pixels[:, :, :blank] = 0
    optical = prepare(cutout_of(pixels, observed), OpticalPreparation(field_of_view_arcsec=80 * SCALE, size_px=40))
    radio = prepare(cutout_of(pixels[:1], observed, scale=1.8, bands=""), RadioPreparation(size_px=80))
    for prepared in (optical, radio):
        assert prepared.coverage == pytest.approx(share, abs=0.03)
        expected = status.NO_COVERAGE if share == 0 else status.PARTIAL_COVERAGE if share < 0.8 else status.OK
        assert prepared.status == expected
        assert (prepared.status_reason == "") == (expected == status.OK)
        dark = max(0, int(prepared.pixels.shape[-1] * (1 - share)) - 1)
        assert not prepared.pixels[..., :dark].any()


def test_a_field_of_view_beyond_the_image_counts_as_unobserved():
    prepared = prepare(cutout_of(galaxy(40)), OpticalPreparation(field_of_view_arcsec=80 * SCALE, size_px=40))
    assert prepared.coverage == pytest.approx(0.25, abs=0.03)
    assert prepared.status == status.PARTIAL_COVERAGE


def test_min_coverage_is_inclusive():
    pixels, observed = galaxy(80)[:1], np.ones((80, 80), bool)
    observed[:, :40] = False
    for minimum, expected in [(0.5, status.OK), (0.51, status.PARTIAL_COVERAGE)]:
        assert (
            prepare(cutout_of(pixels, observed), RadioPreparation(size_px=80, min_coverage=minimum)).status == expected
        )


def test_nothing_to_see():
    flat = cutout_of(np.full((3, 40, 40), 200, np.uint8), bands="rgb", rendered=True)
    prepared = prepare(flat, OpticalPreparation(field_of_view_arcsec=40 * SCALE, size_px=20))
    assert (prepared.status, prepared.status_reason) == (status.NO_SIGNAL, "the colour composite is constant")
    noise = np.random.default_rng(5).uniform(-1e-4, 1e-4, (1, 60, 60)).astype(np.float32)
    prepared = prepare(cutout_of(noise, scale=1.8, bands=""), RadioPreparation(size_px=50))
    assert (prepared.status, prepared.status_reason) == (status.NO_SIGNAL, "no pixel above 3 sigma")
    assert not prepared.pixels.any()
    prepared = prepare(cutout_of(np.zeros((1, 60, 60), np.uint8), rendered=True), RadioPreparation(size_px=50))
    assert (prepared.status, prepared.status_reason) == (status.NO_SIGNAL, "the picture is constant")


# ------------------------------------------------------------------------------------------------ radio


def test_clip_and_scale():
    pixels = np.random.default_rng(6).normal(0, 1e-3, (1, 100, 100)).astype(np.float32)
    pixels[0, 50, 50:52] = 0.2, 0.1
    pixels[0, 2, 2] = 9.0  # outside of the image: counts for nothing but sigma
    prepared = prepare(cutout_of(pixels, scale=1.8, bands=""), RadioPreparation(size_px=60))
    image = prepared.pixels[0]
    assert (image.dtype, image.shape) == (np.uint8, (60, 60))
    assert list(image[30, 30:32]) == [255, 127]
    assert (image[image < 127] > 0).mean() + 0.01 > 0.002
    lower = prepare(cutout_of(pixels, scale=1.8, bands=""), RadioPreparation(size_px=60, clip_sigma=1.0)).pixels[0]
    assert (lower > 0).sum() > 5 * (image > 0).sum()


def test_mask_las():
    side = 60
    rows, columns = np.indices((side, side)) - (side - 1) / 2
    distance = np.hypot(rows, columns) * 1.8
    pixels = (0.01 + 1e-4 * np.random.default_rng(7).random((1, side, side))).astype(np.float32)
    pixels[0, 0, 0] = -0.1
    settings = RadioPreparation(size_px=side, clip_sigma=0, mask_las=True)
    cutout = cutout_of(pixels, scale=1.8, bands="")
    masked = prepare(cutout, settings, las_arcsec=40.0).pixels[0]
    assert np.array_equal(masked > 0, distance <= 20)
    for other, las in [(settings, float("nan")), (RadioPreparation(size_px=side, clip_sigma=0), 40.0)]:
        assert (prepare(cutout, other, las_arcsec=las).pixels[0] > 0).sum() > 3500


@pytest.mark.parametrize("number", range(4))
def test_published_batches_are_reproduced(tmp_path_factory, number):
    """Bowles et al.'s images from the survey's FITS.

    The level comes from a larger map than the FITS at hand (300 px, not 150), so that faint pixels may be kept here
    and not there; those kept by both agree, and in FITS order, not upside down.
    """
    folder = real_folder("first/mirabest")
    published = tmp_path_factory.getbasetemp() / "mirabest_batches"
    if not published.exists():
        unpacked_mirabest(folder.parents[1], published)
    images = {}
    for path in sorted((published / "batches").glob("data_batch_*")):
        batch = read_array_pickle(path)
        names = [Path(str(name)).stem for name in batch["filenames"]]
        images |= dict(zip(names, np.asarray(batch["data"], np.uint8), strict=True))
    there = sorted(name for name in images if (folder / "fits" / f"{name}.fits.gz").exists())
    sample = np.random.default_rng(0).choice(there, 160, replace=False)[number::4]
    kept, worst, upside_down = [], [], 0
    for name in sample:
        body = gzip.decompress((folder / "fits" / f"{name}.fits.gz").read_bytes())
        _, cards = read_fits(body)
        ra, dec = WCS(cards, naxis=2).all_pix2world(74.5, 74.5, 0)  # the published cut is the map's own middle
        prepared = prepare(decode_first(body, Source(name, float(ra), float(dec))), RadioPreparation())
        ours, theirs = prepared.pixels[0].astype(int), images[name].astype(int)
        both = (ours > 0) & (theirs > 0)
        kept.append(((ours > 0) != (theirs > 0)).mean())
        worst.append(np.abs(ours - theirs)[both].max())
        upside_down += ((ours[::-1] > 0) != (theirs > 0)).mean() <= kept[-1]
    print(f"pixels kept by one only: mean {np.mean(kept):.4%}, most {max(kept):.4%}; largest difference {max(worst)}")
    assert max(kept) <= 0.01
    assert max(worst) <= 1
    assert upside_down == 0


# ---------------------------------------------------------------------------------------------- pictures


def test_a_picture_of_known_scale_is_cut_to_the_field_of_view():
    pixels = np.zeros((3, 80, 80), np.uint8)
    pixels[:, 30:50, 30:50] = 200
    pixels[:, 0, 0] = 255
    cutout = cutout_of(pixels, scale=0.5, bands="rgb", rendered=True)
    prepared = prepare(cutout, OpticalPreparation(field_of_view_arcsec=10, size_px=20))
    assert prepared.status == status.NO_SIGNAL
    prepared = prepare(cutout, OpticalPreparation(field_of_view_arcsec=20, size_px=40))
    assert (prepared.pixels[0] == 200).sum() == 400
    assert prepared.pixels[0, 20, 20] == 200
    assert prepared.coverage == 1


def test_grey_picture_to_radio_input():
    pixels = np.zeros((3, 100, 100), np.uint8)
    pixels[:, 40:60, 40:60] = 180
    prepared = prepare(cutout_of(pixels, scale=float("nan"), rendered=True), RadioPreparation(size_px=50))
    assert (prepared.status, prepared.pixels.shape) == (status.OK, (1, 50, 50))
    assert prepared.pixels[0, 25, 25] == 180
    assert prepared.centre_px == (24.5, 24.5)


# ------------------------------------------------------------------------------------------------ names


def test_store_names_tell_preparations_and_surveys_apart():
    survey = {"kind": "legacy", "layer": "ls-dr9"}
    base = store_name("legacy", survey, OpticalPreparation())
    assert base == store_name("legacy", dict(reversed(survey.items())), OpticalPreparation())
    others = [
        store_name("legacy", {**survey, "layer": "ls-dr10"}, OpticalPreparation()),
        store_name("legacy", survey, OpticalPreparation(size_px=64)),
        store_name("legacy", survey, RadioPreparation()),
        store_name("other", survey, OpticalPreparation()),
    ]
    assert len({base, *others}) == 5
    assert all(name.replace("_", "").replace("-", "").isalnum() for name in others)
    assert preparation_identity(OpticalPreparation())["version"] >= 1


def test_a_jpeg_is_read_the_right_way_up(tmp_path):
    """North is up in a JPEG; our rows run from the south."""
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:10] = 250  # north
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    survey = open_survey(DirectorySurvey(kind="directory", path=str(tmp_path), pixel_scale_arcsec=0.5))
    prepared = prepare(
        survey.decode(stream.getvalue(), Source("a", 0, 0)), OpticalPreparation(field_of_view_arcsec=20, size_px=40)
    )
    assert prepared.pixels[0, -10:].min() == 250
    assert prepared.pixels[0, :-10].max() == 0
