"""How good predictions are against labels: accuracy, AUC, recall, precision, calibration error.

Labels are class indices 0..K-1 in the order of the probabilities' columns. What a set of labels leaves
undefined (the recall of a class that does not occur) is None, never 0.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata


def confusion_matrix(prediction: np.ndarray, label: np.ndarray, n_classes: int) -> np.ndarray:
    """Count sources by true class (rows) and predicted class (columns).

    Parameters
    ----------
    prediction, label : np.ndarray of int, shape (N,)
        Class indices.
    n_classes : int
        K.

    Returns
    -------
    np.ndarray of int64, shape (K, K)

    Raises
    ------
    ValueError
        If the shapes differ or an index is outside 0..K-1.
    """
    prediction, label = _indices(prediction, n_classes), _indices(label, n_classes)
    if prediction.shape != label.shape:
        msg = f"{len(prediction)} predictions for {len(label)} labels"
        raise ValueError(msg)
    return np.bincount(label * n_classes + prediction, minlength=n_classes**2).reshape(n_classes, n_classes)


def accuracy(probability: np.ndarray, label: np.ndarray) -> float | None:
    """Return the share of sources whose likeliest class is the true one.

    Parameters
    ----------
    probability : np.ndarray, shape (N, K)
        Of equal probabilities the first class counts.
    label : np.ndarray of int, shape (N,)
        Class indices.

    Returns
    -------
    float or None
        None without sources.

    Raises
    ------
    ValueError
        If shapes do not fit, a label is outside 0..K-1 or a probability is not within 0..1.
    """
    probability, label = _checked(probability, label)
    return _mean(probability.argmax(axis=1) == label)


def recall(probability: np.ndarray, label: np.ndarray) -> list[float | None]:
    """Return, for each class, the share of its sources that were found: ``M_kk / sum_j M_kj``.

    M is `confusion_matrix`; parameters and errors are those of `accuracy`. None for a class that does not
    occur among the labels.
    """
    matrix = _matrix(probability, label)
    return _ratios(matrix.diagonal(), matrix.sum(axis=1))


def precision(probability: np.ndarray, label: np.ndarray) -> list[float | None]:
    """Return, for each class, the share of sources so called that are of it: ``M_kk / sum_i M_ik``.

    M is `confusion_matrix`; parameters and errors are those of `accuracy`. None for a class that is never
    predicted.
    """
    matrix = _matrix(probability, label)
    return _ratios(matrix.diagonal(), matrix.sum(axis=0))


def roc_auc(probability: np.ndarray, label: np.ndarray) -> float | None:
    """Return the area under the ROC curve, the chance that a positive ranks above a negative.

    ``AUC = (sum of the positives' ranks - P (P + 1) / 2) / (P Q)`` for P positives and Q negatives, tied
    ranks averaged (Mann & Whitney 1947). Two classes: of the second class against the first. More: the mean
    over the classes that occur, each against the rest.

    Parameters
    ----------
    probability : np.ndarray, shape (N, K)
        K >= 2.
    label : np.ndarray of int, shape (N,)
        Class indices.

    Returns
    -------
    float or None
        None if fewer than two classes occur.

    Raises
    ------
    ValueError
        As `accuracy`.
    """
    probability, label = _checked(probability, label)
    n_classes = probability.shape[1]
    areas = []
    for positive in (1,) if n_classes == 2 else range(n_classes):
        is_positive = label == positive
        positives = int(is_positive.sum())
        negatives = len(label) - positives
        if positives and negatives:
            ranks = rankdata(probability[:, positive])
            areas.append((ranks[is_positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))
    return _mean(areas)


def expected_calibration_error(probability: np.ndarray, label: np.ndarray, bins: int = 15) -> float | None:
    """Return how far confidence and accuracy lie apart, ``sum_b n_b / N |accuracy_b - confidence_b|``.

    The confidence is the maximum probability; bin b of B holds ``(b - 1) / B < confidence <= b / B``.
    Guo et al. 2017, arXiv:1706.04599, eq. 3.

    Parameters
    ----------
    probability : np.ndarray, shape (N, K)
        Class probabilities.
    label : np.ndarray of int, shape (N,)
        Class indices.
    bins : int
        B.

    Returns
    -------
    float or None
        Between 0 and 1; None without sources.

    Raises
    ------
    ValueError
        As `accuracy`, and if `bins` is below 1.
    """
    probability, label = _checked(probability, label)
    if bins < 1:
        msg = f"bins must be at least 1, got {bins}"
        raise ValueError(msg)
    if len(label) == 0:
        return None
    confidence = probability.max(axis=1)
    correct = probability.argmax(axis=1) == label
    inner_edges = np.linspace(0, 1, bins + 1)[1:-1]
    index = np.searchsorted(inner_edges, confidence, side="left")
    # n_b |accuracy_b - confidence_b| is the absolute sum of (correct - confidence) over the bin.
    gap = np.bincount(index, weights=correct - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(label))


def evaluate_predictions(probability: np.ndarray, label: np.ndarray, classes: Sequence[str]) -> dict:
    """Return the numbers that describe a model on a labelled set, ready for JSON.

    Parameters
    ----------
    probability : np.ndarray, shape (N, K)
        Class probabilities.
    label : np.ndarray of int, shape (N,)
        Class indices.
    classes : sequence of str
        The K names in the columns' order.

    Returns
    -------
    dict
        ``n``, ``accuracy``, ``auc``, ``recall`` {class: value}, ``precision`` {class: value} and ``ece``:
        Python numbers, None where undefined.

    Raises
    ------
    ValueError
        As `accuracy`, and if the number of names is not K.
    """
    probability, label = _checked(probability, label)
    if len(classes) != probability.shape[1]:
        msg = f"{len(classes)} class names for {probability.shape[1]} columns of probabilities"
        raise ValueError(msg)
    return {
        "n": len(label),
        "accuracy": accuracy(probability, label),
        "auc": roc_auc(probability, label),
        "recall": dict(zip(classes, recall(probability, label), strict=True)),
        "precision": dict(zip(classes, precision(probability, label), strict=True)),
        "ece": expected_calibration_error(probability, label),
    }


def _checked(probability: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probability = np.asarray(probability, dtype=np.float64)
    if probability.ndim != 2 or probability.shape[1] < 2:
        msg = f"probabilities must have shape (N, K) with K >= 2, got {probability.shape}"
        raise ValueError(msg)
    label = _indices(label, probability.shape[1])
    if len(label) != len(probability):
        msg = f"{len(probability)} rows of probabilities for {len(label)} labels"
        raise ValueError(msg)
    # NaN fails the comparison too: a source without a prediction is to be dropped by the caller, knowingly.
    if not ((probability >= 0) & (probability <= 1 + 1e-6)).all():
        msg = "probabilities must lie within 0..1; drop sources without a prediction first"
        raise ValueError(msg)
    return probability, label


def _indices(label: np.ndarray, n_classes: int) -> np.ndarray:
    label = np.asarray(label)
    if label.size == 0:
        label = label.astype(np.int64)
    if label.ndim != 1 or label.dtype.kind not in "iu" or ((label < 0) | (label >= n_classes)).any():
        msg = f"class indices must be integers in 0..{n_classes - 1}, shape (N,)"
        raise ValueError(msg)
    return label.astype(np.int64)


def _matrix(probability: np.ndarray, label: np.ndarray) -> np.ndarray:
    probability, label = _checked(probability, label)
    return confusion_matrix(probability.argmax(axis=1), label, probability.shape[1])


def _mean(values: Sequence[float] | np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _ratios(numerator: np.ndarray, denominator: np.ndarray) -> list[float | None]:
    return [float(n / d) if d else None for n, d in zip(numerator, denominator, strict=True)]
