"""Probabilities that mean what they say: fitting a temperature, and comparing confidence with accuracy.

A network is calibrated if, of the sources that it is 80 % sure of, 80 % are right. Networks trained long on few
images are too sure; dividing their logits by one number, the temperature, mends most of it and leaves the most
probable class as it is (Guo, Pleiss, Sun & Weinberger 2017, arXiv:1706.04599).
"""

from dataclasses import dataclass

import numpy as np
from scipy import special
from scipy.optimize import minimize_scalar

from galgaze.tasks import NO_CLASS

COLDEST, HOTTEST = 0.05, 20.0
# A Gaussian on ln T around 0, as if two images had asked for it. On some hundreds of images it is not felt. On few, or
# where all are right, the likelihood alone would run to T = 0: to confidences of 1, out of a handful of images.
PRIOR_WIDTH, PRIOR_IMAGES = 1.0, 2.0
STEPS = 120  # of a first look at ln T: with the prior, the sum may have more than one minimum


# ------------------------------------------------------------------------------------------ temperature


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return class probabilities, ``exp(z_k / T) / sum_j exp(z_j / T)``.

    Parameters
    ----------
    logits : np.ndarray, shape (N, K)
        z.
    temperature : float
        T > 0; above 1 the probabilities come closer to each other.

    Returns
    -------
    np.ndarray of float64, shape (N, K)

    Raises
    ------
    ValueError
        If the logits are not finite or not (N, K) with K >= 2, or the temperature is not above 0.
    """
    if not 0 < temperature < np.inf:
        msg = f"the temperature must be finite and above 0, got {temperature}"
        raise ValueError(msg)
    return special.softmax(_logits(logits) / temperature, axis=1)


def fit_temperature(logits: np.ndarray, label: np.ndarray) -> float:
    """Return the temperature under which the labels are the most probable, within 0.05 to 20.

    It minimises ``-sum_i ln softmax(z_i / T)[y_i] + w (ln T)^2 / (2 s^2)`` over ln T, with s = 1 and w = 2: the
    negative logarithm of the likelihood (Guo et al. 2017, arXiv:1706.04599, sec. 4.2) and of a weak prior.

    Parameters
    ----------
    logits : np.ndarray, shape (N, K)
        Of images that the weights were not fitted to.
    label : np.ndarray of int, shape (N,)
        Class indices; -1 where the class is not known: such rows are left out.

    Returns
    -------
    float
        T.

    Raises
    ------
    ValueError
        If shapes do not fit, a logit is not finite, a label is outside -1..K-1, or no row has a label.
    """
    logits, label = _logits(logits), np.asarray(label)
    if label.shape != (len(logits),):
        msg = f"{len(logits)} rows of logits for labels of shape {label.shape}"
        raise ValueError(msg)
    if label.dtype.kind not in "iu" or ((label < NO_CLASS) | (label >= logits.shape[1])).any():
        msg = f"labels must be integers in 0..{logits.shape[1] - 1}, or -1 where unknown"
        raise ValueError(msg)
    known = label != NO_CLASS
    if not known.any():
        msg = "no row has a label to fit the temperature on"
        raise ValueError(msg)
    logits, label = logits[known], label[known]
    behind = logits - logits[np.arange(len(label)), label][:, None]  # (N, K): by how much classes lead the true one

    def cost(log_temperature: float) -> float:
        likelihood = special.logsumexp(behind / np.exp(log_temperature), axis=1).sum()
        return likelihood + PRIOR_IMAGES * (log_temperature / PRIOR_WIDTH) ** 2 / 2

    steps = np.linspace(np.log(COLDEST), np.log(HOTTEST), STEPS)
    best = int(np.argmin([cost(step) for step in steps]))
    around = steps[max(best - 1, 0)], steps[min(best + 1, STEPS - 1)]
    return float(np.exp(minimize_scalar(cost, bounds=around, method="bounded", options={"xatol": 1e-6}).x))


def _logits(logits: np.ndarray) -> np.ndarray:
    logits = np.asarray(logits, dtype=np.float64)
    if logits.ndim != 2 or logits.shape[1] < 2:
        msg = f"logits must have shape (N, K) with K >= 2, got {logits.shape}"
        raise ValueError(msg)
    if not np.isfinite(logits).all():
        msg = "logits must be finite; drop sources without a prediction first"
        raise ValueError(msg)
    return logits


# ------------------------------------------------------------------------------------------ reliability


@dataclass(frozen=True)
class Reliability:
    """How often predictions of like confidence are right; a value a bin that holds any, of rising confidence.

    Attributes
    ----------
    count : np.ndarray of int64, shape (B,)
        Predictions in the bin, n.
    confidence, accuracy : np.ndarray, shape (B,)
        Their mean confidence, and the share of right ones, p.
    standard_error : np.ndarray, shape (B,)
        ``sqrt(p (1 - p) / n)``; 0 where all are right or all wrong, which says nothing: draw the interval.
    low, high : np.ndarray, shape (B,)
        Ends of the 68 % `wilson_interval` of the accuracy.
    spread : np.ndarray, shape (B,)
        Standard deviation of the accuracy by chance, if the confidences are true: ``sqrt(sum_i c_i (1 - c_i)) / n``.
    """

    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    standard_error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    spread: np.ndarray

    @property
    def calibration_error(self) -> float | None:
        """Expected calibration error in these bins, ``sum_b n_b |accuracy_b - confidence_b| / N``; None without any."""
        if not len(self.count):
            return None
        return float(np.average(np.abs(self.accuracy - self.confidence), weights=self.count))

    @property
    def chance_error(self) -> float | None:
        """About the calibration error that true confidences would show, by chance; None without predictions.

        ``sqrt(2 / pi) sum_b n_b spread_b / N``, the mean absolute deviation of a Gaussian a bin.
        """
        if not len(self.count):
            return None
        return float(np.sqrt(2 / np.pi) * np.average(self.spread, weights=self.count))


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = 10, equal_counts: bool = False) -> Reliability:
    """Return the points of a reliability diagram.

    Of probabilities (N, K) and labels (N,), the confidence is ``probability.max(axis=1)`` and correct is
    ``probability.argmax(axis=1) == label``.

    Parameters
    ----------
    confidence : np.ndarray, shape (N,)
        Probability given to the predicted class.
    correct : np.ndarray of bool, shape (N,)
        Whether it is the true one.
    bins : int
        How many, B; those without a prediction are left out.
    equal_counts : bool
        False: bin b holds ``(b - 1) / B < confidence <= b / B``, as `expected_calibration_error`'s. True: each holds
        about N / B; equal confidences stay together.

    Returns
    -------
    Reliability

    Raises
    ------
    ValueError
        If shapes differ, a confidence is not within 0..1, or `bins` is below 1.
    """
    confidence, correct = np.asarray(confidence, dtype=np.float64), np.asarray(correct)
    if confidence.ndim != 1 or confidence.shape != correct.shape:
        msg = f"confidence and correct must both have shape (N,), got {confidence.shape} and {correct.shape}"
        raise ValueError(msg)
    if not ((confidence >= 0) & (confidence <= 1 + 1e-6)).all():  # NaN fails too
        msg = "confidences must lie within 0..1; drop sources without a prediction first"
        raise ValueError(msg)
    if bins < 1:
        msg = f"bins must be at least 1, got {bins}"
        raise ValueError(msg)
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    if equal_counts and len(confidence):
        edges = np.quantile(confidence, edges, method="inverted_cdf")
    index = np.searchsorted(edges, confidence, side="left")
    variance = np.clip(confidence * (1 - confidence), 0, None)
    sums = [np.bincount(index, values, bins) for values in (np.ones(len(index)), correct, confidence, variance)]
    count, right, total, variance = (values[sums[0] > 0] for values in sums)
    accuracy = right / count
    error = np.sqrt(accuracy * (1 - accuracy) / count)
    ends = wilson_interval(right, count)
    return Reliability(count.astype(np.int64), total / count, accuracy, error, *ends, np.sqrt(variance) / count)


def wilson_interval(successes: np.ndarray, trials: np.ndarray, z: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of Wilson's score interval of a share; z = 1 is 68 % (Wilson 1927, JASA 22, 209).

    ``(p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)``: it stays within 0..1, and is no point
    where all succeed.

    Parameters
    ----------
    successes, trials : np.ndarray or float
        p n, and n above 0.
    z : float
        Half its width in standard errors.

    Returns
    -------
    low, high : np.ndarray or float
    """
    share, scale = successes / trials, 1 + z**2 / trials
    centre = (share + z**2 / (2 * trials)) / scale
    half = z / scale * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)
