"""Toy bars of known length and angle. A position angle here is the bar's on the sky."""

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import gaussian_filter

from galgaze.measures.bars import BAD, GOOD, REASONS, SUSPECT, measure_bar

SIZE = 128
CENTRE = (63.3, 64.1)  # column, row; between pixels, as on the sky
SCALE = 0.524  # arcsec per pixel
NORTH_UP = SCALE * np.array([[-1.0, 0.0], [0.0, 1.0]])  # east to the left, north up (rows grow upwards)
ANGLES = np.arange(0, 180, 15)


def along_across(angle, centre=CENTRE, oversample=1):
    """Coordinates along and across a bar of position angle `angle` (degrees) with NORTH_UP."""
    grid = (np.arange(SIZE * oversample) + 0.5) / oversample - 0.5
    column, row = np.meshgrid(grid - centre[0], grid - centre[1])
    sine, cosine = np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))
    return -column * sine + row * cosine, column * cosine + row * sine


def stick(length, width, angle, centre=CENTRE):
    u, v = along_across(angle, centre, oversample=4)
    inside = (np.abs(u) < length / 2) & (np.abs(v) < width / 2)
    return inside.reshape(SIZE, 4, SIZE, 4).mean(axis=(1, 3))


def gaussian(fwhm, axis_ratio=1.0, angle=0.0):
    u, v = along_across(angle)
    return 0.5 ** (4 * (u**2 + (v / axis_ratio) ** 2) / fwhm**2)


def ferrers(length, axis_ratio, angle):
    u, v = along_across(angle)
    return np.clip(1 - 4 * (u**2 + (v / axis_ratio) ** 2) / length**2, 0, None)


def grainy(saliency, level, seed=0):
    """Correlated noise, three times stronger where it is lit, as gradients have it."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=saliency.shape), 1.0)
    return np.abs(saliency + level * noise / noise.std() * (1 + 3 * saliency))


def angle_between(first, second):
    return abs((first - second + 90) % 180 - 90)


def sweep(draw, **keywords):
    """Measure a toy at all angles; lengths in pixels and the largest error in angle."""
    bars = [measure_bar(draw(angle), CENTRE, NORTH_UP, **keywords) for angle in ANGLES]
    errors = [angle_between(bar.position_angle_deg, angle) for bar, angle in zip(bars, ANGLES, strict=True)]
    assert all(bar.flag == GOOD for bar in bars), bars
    return np.array([bar.length_px for bar in bars]), max(errors)


@pytest.mark.parametrize(
    ("length", "width", "tolerance"),
    [(15, 5, 0.09), (20, 6, 0.07), (30, 8, 0.04), (40, 4, 0.03), (60, 12, 0.02), (80, 16, 0.02)],
)
def test_sticks_of_every_angle_have_their_length(length, width, tolerance):
    lengths, error = sweep(lambda angle: stick(length, width, angle))
    np.testing.assert_allclose(lengths, length, rtol=tolerance)
    assert np.ptp(lengths) < 0.015 * length
    assert error < 0.2


@pytest.mark.parametrize(
    ("draw", "length", "tolerance"),
    [
        (lambda angle: gaussian_filter(stick(40, 8, angle), 2), 40, 0.07),
        (lambda angle: stick(40, 8, angle) + gaussian(12), 40, 0.02),
        (lambda angle: stick(40, 8, angle) + 2 * gaussian(12), 40, 0.05),
        (lambda angle: stick(40, 8, angle) + 0.2 * gaussian(60), 40, 0.06),
        (lambda angle: stick(40, 10, angle) - stick(40, 4, angle), 40, 0.05),  # only its sides are lit
        (lambda angle: stick(40, 8, angle) - 0.8 * stick(12, 8, angle), 40, 0.05),  # only its ends
        (lambda angle: ferrers(40, 0.25, angle), 0.81 * 40, 0.02),
        (lambda angle: gaussian(30, 0.25, angle), 1.46 * 30, 0.02),
    ],
    ids=["blurred", "bulge", "bright-bulge", "disc", "sides", "ends", "ferrers", "gaussian"],
)
def test_other_bars_of_every_angle(draw, length, tolerance):
    lengths, error = sweep(draw)
    np.testing.assert_allclose(lengths, length, rtol=tolerance)
    assert np.ptp(lengths) < 0.02 * length
    assert error < 0.3


def test_noisy_bars():
    lengths, error = sweep(lambda angle: grainy(stick(40, 8, angle), 0.1, seed=int(angle)))
    np.testing.assert_allclose(lengths, 40, rtol=0.1)
    assert abs(lengths.mean() / 40 - 1) < 0.04
    assert error < 4


def test_length_grows_with_the_bar():
    lengths = [
        measure_bar(ferrers(size, 0.3, 20) + 0.5 * gaussian(8), CENTRE, NORTH_UP).length_px
        for size in np.arange(15, 80, 2.5)
    ]
    assert (np.diff(lengths) > 0).all()


def test_scale_and_zero_point_do_not_matter():
    saliency = grainy(stick(30, 8, 40), 0.05)
    bar = measure_bar(saliency, CENTRE, NORTH_UP)
    np.testing.assert_allclose(astuple(measure_bar(7e-5 * saliency + 3e-5, CENTRE, NORTH_UP))[:5], astuple(bar)[:5])


def test_arcsec_follow_the_pixel_scale():
    bar = measure_bar(stick(30, 8, 40), CENTRE, NORTH_UP)
    assert bar.length_arcsec == pytest.approx(bar.length_px * SCALE)
    twice = measure_bar(stick(30, 8, 40), CENTRE, 2 * NORTH_UP)
    assert twice.length_arcsec == pytest.approx(2 * bar.length_arcsec)
    assert twice.position_angle_deg == pytest.approx(bar.position_angle_deg)


def test_position_angle_runs_from_north_through_east():
    # North up and east left: a bar from the lower right to the upper left is at 45 degrees.
    saliency = gaussian_filter(np.eye(61)[::-1], 1)  # row + column = 60, rows grow upwards
    assert measure_bar(saliency, (30, 30), NORTH_UP).position_angle_deg == pytest.approx(45)
    # Rows that grow downwards: the same pixels are mirrored on the sky.
    north_down = -SCALE * np.eye(2)
    assert measure_bar(saliency, (30, 30), north_down).position_angle_deg == pytest.approx(135)


def test_field_rotation_adds_to_the_angle():
    turn = np.deg2rad(25)
    # Turns (east, north) so that north goes towards east.
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    bar = measure_bar(stick(30, 8, 40), CENTRE, rotation @ NORTH_UP)
    assert bar.position_angle_deg == pytest.approx(65, abs=0.2)


def test_length_of_stretched_pixels_is_that_on_the_sky():
    stretched = np.array([[-0.2, 0.0], [0.0, 0.6]])
    horizontal = measure_bar(stick(40, 8, 90), CENTRE, stretched)
    vertical = measure_bar(stick(40, 8, 0), CENTRE, stretched)
    assert vertical.length_arcsec == pytest.approx(3 * horizontal.length_arcsec, rel=0.01)


@pytest.mark.parametrize("angle", ANGLES)
def test_flips_mirror_the_angle(angle):
    saliency = grainy(stick(40, 8, angle), 0.05)
    bar = measure_bar(saliency, CENTRE, NORTH_UP)
    flipped = measure_bar(saliency[:, ::-1], (SIZE - 1 - CENTRE[0], CENTRE[1]), NORTH_UP)
    assert flipped.length_px == pytest.approx(bar.length_px, rel=1e-9)
    assert angle_between(flipped.position_angle_deg, -bar.position_angle_deg) < 1e-6
    transposed = measure_bar(saliency.T, CENTRE[::-1], NORTH_UP)
    assert transposed.length_px == pytest.approx(bar.length_px, rel=1e-9)


@pytest.mark.parametrize(
    "saliency",
    [
        stick(40, 8, 30),
        ferrers(40, 0.3, 30) + gaussian(10),
        grainy(stick(40, 8, 30) + gaussian(10), 0.1),
        grainy(stick(15, 5, 75), 0.05),
    ],
    ids=["stick", "ferrers", "grainy", "small"],
)
def test_tiny_changes_of_the_map_change_the_length_as_little(saliency):
    before = measure_bar(saliency, CENTRE, NORTH_UP)
    for seed in range(5):
        change = 1e-6 * np.ptp(saliency) * np.random.default_rng(seed).uniform(-1, 1, saliency.shape)
        after = measure_bar(saliency + change, CENTRE, NORTH_UP)
        assert after.length_px == pytest.approx(before.length_px, rel=1e-5)
        assert after.elongation == pytest.approx(before.elongation, rel=1e-5)
        assert angle_between(after.position_angle_deg, before.position_angle_deg) < 1e-3


def test_unknown_pixel_scale_leaves_the_pixels():
    bar = measure_bar(stick(40, 8, 30), CENTRE, np.full((2, 2), np.nan))
    assert bar.length_px == pytest.approx(40, rel=0.03)
    assert np.isnan(bar.length_arcsec)
    assert np.isnan(bar.position_angle_deg)
    assert bar.flag == GOOD


def test_a_brighter_companion_is_not_measured():
    companion = 3 * stick(20, 10, 120, centre=(110, 100))
    bar = measure_bar(stick(40, 8, 30) + companion, CENTRE, NORTH_UP)
    assert bar.length_px == pytest.approx(40, rel=0.05)
    assert angle_between(bar.position_angle_deg, 30) < 0.5


@pytest.mark.parametrize(
    ("saliency", "flag", "reason"),
    [
        (np.zeros((SIZE, SIZE)), BAD, "flat"),
        (np.full((SIZE, SIZE), 0.1), BAD, "flat"),
        (np.where(np.eye(SIZE) > 0, np.nan, 1.0), BAD, "not_finite"),
        (np.where(np.eye(SIZE) > 0, np.inf, 1.0), BAD, "not_finite"),
        (gaussian(20), BAD, "round"),
        (stick(40, 8, 30, centre=(90, 64)), BAD, "not_at_centre"),
        (stick(40, 8, 90, centre=(75, 64)), SUSPECT, "off_centre"),
        (stick(200, 10, 30), SUSPECT, "at_border"),
        (
            stick(40, 8, 30) + stick(100, 8, 30, (10, 64)) + stick(100, 8, 30, (115, 64)),
            SUSPECT,
            "fragmented",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_good_bar_says_why(saliency, flag, reason):
    bar = measure_bar(saliency, CENTRE, NORTH_UP)
    assert reason in bar.flag_reason.split(",")
    assert bar.flag == flag == max(REASONS[name] for name in bar.flag_reason.split(","))
    for value in (bar.length_px, bar.length_arcsec, bar.position_angle_deg):
        assert np.isnan(value) == (flag == BAD)


def test_noise_alone_is_never_good():
    flags = [measure_bar(grainy(np.zeros((SIZE, SIZE)), 1.0, seed), CENTRE, NORTH_UP).flag for seed in range(20)]
    assert min(flags) >= SUSPECT


@settings(max_examples=150, deadline=None)
@given(
    saliency=arrays(
        st.sampled_from([np.float32, np.float64]),
        array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements={"allow_nan": True, "allow_infinity": True},
        fill=st.nothing(),
    ),
    centre=st.tuples(st.floats(-5, 20), st.floats(-5, 20)),
)
def test_any_map_is_measured_or_flagged(saliency, centre):
    bar = measure_bar(saliency, centre, NORTH_UP)
    assert np.isnan(bar.length_px) == (bar.flag == BAD)
    assert (bar.flag_reason == "") == (bar.flag == GOOD)
    if bar.flag != BAD:
        assert 0 <= bar.length_px <= 2 * np.hypot(*saliency.shape)
        assert 0 <= bar.position_angle_deg < 180
        assert bar.elongation >= 1


@pytest.mark.parametrize("shape", [(4,), (2, 4, 4), (0, 4)])
def test_what_is_no_map_is_refused(shape):
    with pytest.raises(ValueError, match="needs a map"):
        measure_bar(np.zeros(shape), CENTRE, NORTH_UP)
