"""How sure a prediction is, source by source."""

import numpy as np
from scipy.special import entr


def entropy(probability: np.ndarray) -> np.ndarray:
    """Return the normalised entropy of each source's probabilities, ``-sum_k p_k ln p_k / ln K``.

    Parameters
    ----------
    probability : np.ndarray, shape (N, K)
        Class probabilities, K >= 2.

    Returns
    -------
    np.ndarray, shape (N,)
        0 if one class has all the probability, 1 if all have the same; NaN where a probability is NaN.

    Raises
    ------
    ValueError
        If the shape is not (N, K) with K >= 2.
    """
    probability = _checked(probability)
    return np.clip(entr(probability).sum(axis=1) / np.log(probability.shape[1]), 0, 1)


def margin(probability: np.ndarray) -> np.ndarray:
    """Return by how much each source's likeliest class leads the second, ``p_(1) - p_(2)``.

    Parameters
    ----------
    probability : np.ndarray, shape (N, K)
        Class probabilities, K >= 2.

    Returns
    -------
    np.ndarray, shape (N,)
        Between 0 and 1; NaN where a probability is NaN.

    Raises
    ------
    ValueError
        If the shape is not (N, K) with K >= 2.
    """
    ascending = np.sort(_checked(probability), axis=1)  # NaN comes last
    return ascending[:, -1] - ascending[:, -2]


def _checked(probability: np.ndarray) -> np.ndarray:
    probability = np.asarray(probability, dtype=np.float64)
    if probability.ndim != 2 or probability.shape[1] < 2:
        msg = f"probabilities must have shape (N, K) with K >= 2, got {probability.shape}"
        raise ValueError(msg)
    return probability
