from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from galgaze.measures.attention import attention_statistics

SCALE = 1.8
NORTH_UP = SCALE * np.array([[-1.0, 0.0], [0.0, 1.0]])
CENTRE = (30.0, 30.0)
ROW, COLUMN = np.indices((61, 61))
RADIUS = np.hypot(ROW - 30, COLUMN - 30)


def test_uniform_map():
    statistics = attention_statistics(np.full((61, 61), 0.3), NORTH_UP, CENTRE)
    assert statistics.entropy == pytest.approx(1)
    assert statistics.peak == pytest.approx(1)
    assert statistics.effective_area_arcsec2 == pytest.approx(61**2 * SCALE**2)
    assert statistics.centroid_offset_arcsec == pytest.approx(0, abs=1e-9)


def test_point():
    attention = np.zeros((61, 61))
    attention[34, 27] = 5.0  # 4 rows and 3 columns from the centre
    statistics = attention_statistics(attention, NORTH_UP, CENTRE)
    assert statistics.entropy == 0
    assert statistics.peak == pytest.approx(61**2)
    assert statistics.effective_area_arcsec2 == pytest.approx(SCALE**2)
    assert statistics.centroid_offset_arcsec == pytest.approx(5 * SCALE)


def test_gaussian():
    sigma = 4.0
    statistics = attention_statistics(np.exp(-0.5 * (RADIUS / sigma) ** 2), NORTH_UP, CENTRE)
    assert statistics.entropy == pytest.approx(np.log(2 * np.pi * np.e * sigma**2) / np.log(61**2), rel=1e-6)
    assert statistics.peak == pytest.approx(61**2 / (2 * np.pi * sigma**2), rel=1e-6)
    assert statistics.effective_area_arcsec2 == pytest.approx(4 * np.pi * sigma**2 * SCALE**2, rel=1e-6)


def test_ring():
    ring = (RADIUS > 15) & (RADIUS < 20)
    statistics = attention_statistics(ring, NORTH_UP, CENTRE)
    assert statistics.effective_area_arcsec2 == pytest.approx(ring.sum() * SCALE**2)
    assert statistics.entropy == pytest.approx(np.log(ring.sum()) / np.log(61**2))
    assert statistics.centroid_offset_arcsec == pytest.approx(0, abs=1e-9)


def test_the_jacobian_measures_area_and_offset():
    attention = np.zeros((10, 20))
    attention[4, 7] = 1.0
    sheared = np.array([[2.0, 1.0], [0.0, 3.0]])  # column -> 2 east; row -> 1 east and 3 north
    statistics = attention_statistics(attention, sheared, (6.0, 3.0))
    assert statistics.effective_area_arcsec2 == pytest.approx(6)
    assert statistics.centroid_offset_arcsec == pytest.approx(np.hypot(3, 3))


def test_unknown_pixel_scale_leaves_what_has_no_unit():
    statistics = attention_statistics(np.ones((5, 5)), np.full((2, 2), np.nan), (2, 2))
    assert statistics.entropy == pytest.approx(1)
    assert statistics.peak == pytest.approx(1)
    assert np.isnan([statistics.effective_area_arcsec2, statistics.centroid_offset_arcsec]).all()


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_map_that_says_nothing_gives_nan(value):
    attention = np.zeros((5, 5))
    attention[1, 2] = value
    assert np.isnan(astuple(attention_statistics(attention, NORTH_UP, (2, 2)))).all()


def test_one_pixel_has_no_entropy():
    statistics = attention_statistics([[2.0]], NORTH_UP, (0, 0))
    assert np.isnan(statistics.entropy)
    assert statistics.peak == 1


def test_a_batch_is_its_maps_one_by_one():
    attention = np.random.default_rng(0).uniform(size=(4, 3, 7, 9))
    attention[2, 1] = 0
    jacobian = NORTH_UP * np.array([1.0, 2.0, np.nan, 4.0])[:, None, None, None]  # (4, 1, 2, 2): one a source
    batch = attention_statistics(attention, jacobian, (4, 3))
    for index in np.ndindex(4, 3):
        one = attention_statistics(attention[index], jacobian[index[0], 0], (4, 3))
        np.testing.assert_allclose([field[index] for field in astuple(batch)], astuple(one))


@given(
    arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8).filter(lambda shape: shape != (1, 1)),
        elements=st.floats(0, None, width=32, allow_nan=False, allow_infinity=False),
        fill=st.nothing(),
    )
)
def test_bounds(attention):
    statistics = attention_statistics(attention, NORTH_UP, (2, 2))
    if not attention.any():
        assert np.isnan(statistics.entropy)
        return
    assert 0 <= statistics.entropy <= 1
    assert 1 - 1e-9 <= statistics.peak <= attention.size * (1 + 1e-9)
    assert SCALE**2 * (1 - 1e-9) <= statistics.effective_area_arcsec2 <= attention.size * SCALE**2 * (1 + 1e-9)
    assert 0 <= statistics.centroid_offset_arcsec <= SCALE * np.hypot(10, 10)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        attention_statistics([[1.0, -1.0]], NORTH_UP, (0, 0))
    with pytest.raises(ValueError, match=r"needs maps \(\.\.\., H, W\)"):
        attention_statistics([1.0, 2.0], NORTH_UP, (0, 0))
