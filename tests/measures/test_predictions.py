import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from galgaze.measures.predictions import entropy, margin

PROBABILITY = np.array([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0], [0.2, 0.1, 0.7], [np.nan, 0, 1]])


def test_by_hand():
    np.testing.assert_allclose(entropy(PROBABILITY)[:3], [0, 1, np.log(2) / np.log(3)])
    np.testing.assert_allclose(margin(PROBABILITY)[:4], [1, 0, 0, 0.5])


def test_nan_stays_in_its_row():
    assert np.isnan(entropy(PROBABILITY)).tolist() == [False] * 4 + [True]
    assert np.isnan(margin(PROBABILITY)).tolist() == [False] * 4 + [True]


@given(arrays(np.float64, st.tuples(st.integers(0, 5), st.integers(2, 6)), elements=st.floats(1e-3, 1)))
def test_bounds_and_order_of_classes(weight):
    probability = weight / weight.sum(axis=1, keepdims=True)
    for measure in (entropy, margin):
        value = measure(probability)
        assert value.shape == (len(weight),)
        assert ((value >= 0) & (value <= 1)).all()
        np.testing.assert_allclose(measure(probability[:, ::-1]), value, atol=1e-12)


@pytest.mark.parametrize("measure", [entropy, margin])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_bad_shapes_are_refused(measure, shape):
    with pytest.raises(ValueError, match="K >= 2"):
        measure(np.ones(shape))
