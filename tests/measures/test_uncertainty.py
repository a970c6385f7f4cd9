import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galgaze.measures.predictions import entropy
from galgaze.measures.uncertainty import spread


def test_predictions_that_agree_do_not_spread_however_doubtful_they_are():
    one = np.array([[0.5, 0.3, 0.2], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])
    found = spread(np.stack([one] * 4))
    np.testing.assert_allclose(found["mean"], one)
    np.testing.assert_allclose(found["probability_spread"], 0, atol=1e-15)
    np.testing.assert_allclose(found["mutual_information"], 0, atol=1e-15)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_predictions_each_certain_of_another_class_share_no_information(classes):
    found = spread(np.eye(classes)[:, None])  # (K, 1, K)
    np.testing.assert_allclose(found["mean"], 1 / classes)
    np.testing.assert_allclose(found["mutual_information"], 1)
    np.testing.assert_allclose(found["probability_spread"], np.sqrt((1 - 1 / classes) / classes))


def test_two_of_ten_reach_ln_2_over_ln_10():
    found = spread(np.eye(10)[:2, None])
    np.testing.assert_allclose(found["mutual_information"], np.log(2) / np.log(10))


def test_by_hand():
    found = spread(np.array([[[0.9, 0.1]], [[0.5, 0.5]]]))
    doubt = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    mean = -(0.7 * np.log(0.7) + 0.3 * np.log(0.3))
    np.testing.assert_allclose(found["mean"], [[0.7, 0.3]])
    np.testing.assert_allclose(found["probability_spread"], 0.2)
    np.testing.assert_allclose(found["mutual_information"], (mean - (doubt + np.log(2)) / 2) / np.log(2))


def test_the_class_is_the_likeliest_of_the_mean():
    predictions = np.array([[[0.6, 0.4, 0.0]], [[0.1, 0.4, 0.5]]])  # each prefers another, the mean the second
    np.testing.assert_allclose(spread(predictions)["probability_spread"], 0, atol=1e-15)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(2, 6))
def test_bounds_order_and_the_entropy_split(seed, predictions, classes):
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.full(classes, 0.2), size=(predictions, 5))
    found = spread(p)
    assert ((found["mutual_information"] >= 0) & (found["mutual_information"] <= 1)).all()
    assert (found["mutual_information"] <= np.log(predictions) / np.log(classes) + 1e-12).all()
    assert (found["probability_spread"] <= 0.5 + 1e-12).all()
    shared = np.mean([entropy(one) for one in p], axis=0)
    np.testing.assert_allclose(found["mutual_information"] + shared, entropy(found["mean"]), atol=1e-12)
    for name, value in spread(p[random.permutation(predictions)]).items():
        np.testing.assert_allclose(value, found[name], atol=1e-12)


def test_nan_stays_with_its_source():
    p = np.full((3, 2, 2), 0.5)
    p[1, 0, 1] = np.nan
    found = spread(p)
    for name in ("probability_spread", "mutual_information"):
        assert np.isnan(found[name]).tolist() == [True, False]


@pytest.mark.parametrize("shape", [(4, 3), (0, 4, 3), (2, 4, 1)])
def test_bad_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="M >= 1 and K >= 2"):
        spread(np.ones(shape))
