"""Temperatures on simulated networks whose overconfidence is known, and the points of reliability diagrams."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from galgaze.measures.calibration import fit_temperature, reliability, softmax, wilson_interval
from galgaze.measures.evaluation import expected_calibration_error


def simulated(count: int, temperature: float, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times too large, and labels drawn by the true probabilities."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.standard_normal((count, classes))
    gumbel = -np.log(-np.log(rng.random(logits.shape)))  # the largest of z + Gumbel noise is a draw from softmax(z)
    return temperature * logits, (logits + gumbel).argmax(axis=1)


def error_of(probability: np.ndarray, label: np.ndarray, **bins) -> float:
    return reliability(probability.max(axis=1), probability.argmax(axis=1) == label, **bins).calibration_error


# ---------------------------------------------------------------------------------------- temperature


@pytest.mark.parametrize("true", [0.3, 1.0, 2.5, 8.0])
@pytest.mark.parametrize("classes", [2, 10])
def test_the_temperature_of_simulated_networks_is_found(true, classes):
    assert fit_temperature(*simulated(6000, true, classes)) == pytest.approx(true, rel=0.05)


def test_calibration_lowers_the_error_on_other_images_and_changes_no_class():
    temperature = fit_temperature(*simulated(1000, 3.0, seed=1))
    logits, label = simulated(4000, 3.0, seed=2)
    raw, calibrated = softmax(logits), softmax(logits, temperature)
    assert error_of(raw, label) > 0.15
    assert error_of(calibrated, label) < 0.03
    np.testing.assert_array_equal(raw.argmax(axis=1), calibrated.argmax(axis=1))


def test_neither_order_nor_a_shift_of_all_logits_nor_unlabelled_rows_matter():
    logits, label = simulated(200, 2.0)
    expected = fit_temperature(logits, label)
    order = np.random.default_rng(1).permutation(200)
    classes = np.array([2, 0, 1])
    shift = 50 * np.random.default_rng(2).standard_normal((200, 1))
    unknown = np.vstack([logits, [[90.0, 0, 0]] * 40]), np.append(label, [-1] * 40)
    assert fit_temperature(logits[order], label[order]) == pytest.approx(expected, rel=1e-6)
    assert fit_temperature(logits[:, np.argsort(classes)], classes[label]) == pytest.approx(expected, rel=1e-6)
    assert fit_temperature(logits + shift, label) == pytest.approx(expected, rel=1e-6)
    assert fit_temperature(*unknown) == pytest.approx(expected, rel=1e-6)


def test_few_images_that_are_all_right_or_all_wrong_do_not_make_anyone_certain():
    logits = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    right, wrong = logits.argmax(axis=1), logits.argmin(axis=1)
    assert 0.3 < fit_temperature(logits, right) < 1
    assert softmax(logits, fit_temperature(logits, right)).max() < 1 - 1e-4
    assert 1 < fit_temperature(logits, wrong) < 20
    assert 0.05 <= fit_temperature(np.tile(logits, (300, 1)), np.tile(right, 300)) < 0.3  # many may speak for certainty
    assert fit_temperature(np.zeros((5, 4)), np.zeros(5, int)) == pytest.approx(1, abs=1e-3)  # logits that say nothing


@given(
    logits=hnp.arrays(float, st.tuples(st.integers(1, 12), st.integers(2, 5)), elements=st.floats(-1e4, 1e4)),
    data=st.data(),
)
def test_any_finite_logits_give_a_temperature_within_its_bounds_that_is_no_worse_than_none(logits, data):
    label = data.draw(hnp.arrays(np.int64, len(logits), elements=st.integers(0, logits.shape[1] - 1)))
    temperature = fit_temperature(logits, label)
    assert 0.05 <= temperature <= 20

    def cost(t):
        behind = (logits - logits[np.arange(len(label)), label][:, None]) / t
        return np.logaddexp.reduce(behind, axis=1).sum() + np.log(t) ** 2

    assert cost(temperature) <= cost(1.0) + 1e-6


@pytest.mark.parametrize(
    ("logits", "label", "message"),
    [
        (np.zeros(3), np.zeros(3, int), r"shape \(N, K\) with K >= 2, got \(3,\)"),
        (np.zeros((3, 1)), np.zeros(3, int), "K >= 2"),
        (np.zeros((3, 2)), np.zeros(2, int), r"3 rows of logits for labels of shape \(2,\)"),
        (np.full((3, 2), np.nan), np.zeros(3, int), "must be finite"),
        (np.full((3, 2), -np.inf), np.zeros(3, int), "must be finite"),
        (np.zeros((3, 2)), np.array([0, 1, 2]), r"integers in 0..1, or -1"),
        (np.zeros((3, 2)), np.array([0, 1, -2]), r"integers in 0..1, or -1"),
        (np.zeros((3, 2)), np.zeros(3), "must be integers"),
        (np.zeros((3, 2)), np.full(3, -1), "no row has a label"),
        (np.zeros((0, 2)), np.zeros(0, int), "no row has a label"),
    ],
)
def test_what_cannot_be_fitted_is_refused(logits, label, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(logits, label)


def test_softmax():
    np.testing.assert_allclose(softmax(np.array([[np.log(8), 0.0]]), 3.0), [[2 / 3, 1 / 3]])
    np.testing.assert_allclose(softmax(np.array([[1e5, -1e5]])), [[1, 0]])
    for temperature in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="temperature must be finite and above 0"):
            softmax(np.zeros((1, 2)), temperature)


# ---------------------------------------------------------------------------------------- reliability


def test_equal_bins_of_confidence():
    points = reliability(np.array([0.81, 0.89, 0.9, 1.0, 0.05]), np.array([True, False, True, True, False]))
    assert points.count.tolist() == [1, 3, 1]
    np.testing.assert_allclose(points.confidence, [0.05, 2.6 / 3, 1])
    np.testing.assert_allclose(points.accuracy, [0, 2 / 3, 1])
    np.testing.assert_allclose(points.standard_error, [0, np.sqrt(2 / 27), 0])
    assert points.calibration_error == pytest.approx((0.05 + 3 * 0.2 + 0) / 5)


def test_bins_of_equal_counts_share_the_predictions_and_keep_equal_ones_together():
    rng = np.random.default_rng(3)
    confidence, correct = rng.beta(8, 1, 1003), rng.random(1003) < 0.8
    points = reliability(confidence, correct, 10, equal_counts=True)
    assert points.count.sum() == 1003
    assert set(points.count.tolist()) <= {100, 101}
    assert (np.diff(points.confidence) > 0).all()
    assert np.average(points.accuracy, weights=points.count) == pytest.approx(correct.mean())
    ties = reliability(np.repeat([0.6, 0.9], [7, 3]), np.ones(10, bool), 5, equal_counts=True)
    assert ties.count.tolist() == [7, 3]


def test_the_calibration_error_is_that_of_the_evaluation():
    logits, label = simulated(500, 4.0)
    probability = softmax(logits)
    assert error_of(probability, label, bins=15) == pytest.approx(expected_calibration_error(probability, label))


@pytest.mark.parametrize("equal_counts", [False, True])
def test_few_predictions_show_an_error_though_their_confidences_are_true(equal_counts):
    rng = np.random.default_rng(5)
    confidence = rng.uniform(0.5, 1, 300)
    drawn = [reliability(confidence, rng.random(300) < confidence, 10, equal_counts) for _ in range(200)]
    assert np.mean([points.calibration_error for points in drawn]) == pytest.approx(drawn[0].chance_error, rel=0.05)
    assert 0.03 < drawn[0].chance_error < 0.08
    many = reliability(np.tile(confidence, 100), np.ones(30_000, bool), 10, equal_counts)
    assert many.chance_error == pytest.approx(drawn[0].chance_error / 10)


def test_intervals_cover_the_accuracy_and_widen_with_fewer_predictions():
    rng = np.random.default_rng(4)
    points = reliability(rng.random(400), rng.random(400) < 0.5, 4)
    assert ((points.low < points.accuracy) & (points.accuracy < points.high)).all()
    many, few = (reliability(np.full(n, 0.9), np.ones(n, bool)) for n in (100, 4))
    assert many.high[0] == pytest.approx(1)
    assert few.low[0] < many.low[0] < 1
    # (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) with p = 0.8, n = 10, z = 1, by hand
    assert wilson_interval(8, 10) == pytest.approx(((0.85 - np.sqrt(0.0185)) / 1.1, (0.85 + np.sqrt(0.0185)) / 1.1))


def test_no_predictions_and_wrong_ones():
    for equal_counts in (False, True):
        nothing = reliability(np.array([]), np.array([], bool), equal_counts=equal_counts)
        assert len(nothing.count) == 0
        assert nothing.calibration_error is nothing.chance_error is None
    with pytest.raises(ValueError, match="must both have shape"):
        reliability(np.array([0.5]), np.array([True, False]))
    with pytest.raises(ValueError, match=r"within 0..1; drop sources without a prediction"):
        reliability(np.array([0.5, np.nan]), np.array([True, False]))
    with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
        reliability(np.array([0.5]), np.array([True]), 0)
