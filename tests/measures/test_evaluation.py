import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from galgaze.measures.evaluation import (
    accuracy,
    confusion_matrix,
    evaluate_predictions,
    expected_calibration_error,
    precision,
    recall,
    roc_auc,
)


def predictions(seed, n, n_classes):
    """Labels and probabilities that know something of them; rounded, so that there are ties."""
    random = np.random.default_rng(seed)
    label = random.integers(n_classes, size=n)
    logit = random.normal(size=(n, n_classes)) + 1.5 * np.eye(n_classes)[label]
    probability = np.round(np.exp(logit) / np.exp(logit).sum(axis=1, keepdims=True), 2)
    return probability / probability.sum(axis=1, keepdims=True), label


def calibration_error(probability, label, bins):
    """As the paper writes it, bin by bin."""
    confidence, correct = probability.max(axis=1), probability.argmax(axis=1) == label
    total = 0.0
    for lower, upper in zip(np.linspace(0, 1, bins + 1)[:-1], np.linspace(0, 1, bins + 1)[1:], strict=True):
        inside = (confidence > lower) & (confidence <= upper)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total


@given(seed=st.integers(0, 2**32), n=st.integers(40, 200), n_classes=st.sampled_from([2, 3, 5]))
def test_scikit_learn_agrees(seed, n, n_classes):
    probability, label = predictions(seed, n, n_classes)
    prediction = probability.argmax(axis=1)
    classes = list(range(n_classes))

    matrix = metrics.confusion_matrix(label, prediction, labels=classes)
    np.testing.assert_array_equal(confusion_matrix(prediction, label, n_classes), matrix)
    assert accuracy(probability, label) == pytest.approx(metrics.accuracy_score(label, prediction))
    for ours, theirs in ((recall, metrics.recall_score), (precision, metrics.precision_score)):
        expected = theirs(label, prediction, labels=classes, average=None, zero_division=np.nan)
        got = np.array(ours(probability, label), dtype=float)  # None becomes NaN
        np.testing.assert_allclose(got, expected)
    if len(set(label)) == n_classes:
        scores = probability[:, 1] if n_classes == 2 else probability
        expected = metrics.roc_auc_score(label, scores, multi_class="ovr", average="macro")
        assert roc_auc(probability, label) == pytest.approx(expected)
    for bins in (10, 15):
        expected = calibration_error(probability, label, bins)
        assert expected_calibration_error(probability, label, bins) == pytest.approx(expected, abs=1e-12)


def test_auc_of_ties_and_of_perfect_order():
    label = np.array([0, 0, 1, 1])
    assert roc_auc(np.full((4, 2), 0.5), label) == 0.5
    assert roc_auc(np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]]), label) == 1
    assert roc_auc(np.array([[0.1, 0.9], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]]), label) == 0


def test_calibration_error_by_hand():
    probability = np.array([[0.8, 0.2]] * 5 + [[0.3, 0.7]] * 5)
    label = np.array([0, 0, 0, 0, 1, 1, 1, 1, 0, 0])  # 80 % right at 0.8, 60 % at 0.7
    assert expected_calibration_error(probability, label) == pytest.approx(0.5 * 0.1)
    assert expected_calibration_error(np.eye(2)[[0, 1]], np.array([1, 0])) == 1


def test_evaluation_is_ready_for_json():
    probability, label = predictions(0, 100, 2)
    result = evaluate_predictions(probability, label, ("FRI", "FRII"))
    assert json.loads(json.dumps(result)) == result
    assert list(result) == ["n", "accuracy", "auc", "recall", "precision", "ece"]
    assert list(result["recall"]) == list(result["precision"]) == ["FRI", "FRII"]
    assert result["n"] == 100


def test_what_is_undefined_is_none():
    result = evaluate_predictions(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 0]), ("FRI", "FRII"))
    assert result["auc"] is None
    assert result["recall"] == {"FRI": 1.0, "FRII": None}
    assert result["precision"] == {"FRI": 1.0, "FRII": None}
    empty = evaluate_predictions(np.zeros((0, 2)), [], ("FRI", "FRII"))
    assert (empty["n"], empty["accuracy"], empty["auc"], empty["ece"]) == (0, None, None, None)


def test_auc_is_over_the_classes_that_occur():
    probability, label = predictions(1, 60, 3)
    keep = label != 2
    areas = [metrics.roc_auc_score(label[keep] == k, probability[keep, k]) for k in (0, 1)]
    assert roc_auc(probability[keep], label[keep]) == pytest.approx(np.mean(areas))


@pytest.mark.parametrize(
    ("probability", "label", "message"),
    [
        (np.ones(3), [0, 0, 0], r"shape \(N, K\)"),
        (np.ones((3, 1)), [0, 0, 0], "K >= 2"),
        (np.full((2, 2), 0.5), [0], "2 rows of probabilities for 1 labels"),
        (np.full((2, 2), 0.5), [0, 2], r"integers in 0\.\.1"),
        (np.full((2, 2), 0.5), [0, -1], r"integers in 0\.\.1"),
        (np.full((2, 2), 0.5), [0.0, 1.0], r"integers in 0\.\.1"),
        (np.array([[0.5, np.nan]]), [0], "drop sources without a prediction"),
        (np.array([[3.0, -2.0]]), [0], r"within 0\.\.1"),
    ],
)
def test_bad_input_is_refused(probability, label, message):
    with pytest.raises(ValueError, match=message):
        evaluate_predictions(probability, label, ("FRI", "FRII"))


def test_class_names_must_fit():
    with pytest.raises(ValueError, match="3 class names for 2 columns"):
        evaluate_predictions(np.full((1, 2), 0.5), [0], ("a", "b", "c"))
