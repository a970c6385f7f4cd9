"""How far several predictions of the same source lie apart: of an ensemble's members, or of thinned networks."""

import numpy as np

from galgaze.measures.predictions import entropy


def spread(probabilities: np.ndarray) -> dict[str, np.ndarray]:
    r"""Describe, for each source, how far its predictions agree.

    With p_m the class probabilities of prediction m, and p their mean:

    - ``mean``: p
    - ``probability_spread``: the standard deviation of the probability of the class that is likeliest in p,
      ``sqrt(mean over m of (p_mk - p_k)^2)``, k = argmax p
    - ``mutual_information``: ``(H(p) - mean over m of H(p_m)) / ln K``, with ``H(p) = -sum_k p_k ln p_k``: how much
      knowing which network was asked tells of the class (Houlsby et al. 2011, arXiv:1112.5745). What is left of
      the entropy, ``mean H(p_m)``, is doubt that all share. M predictions reach at most ``ln M / ln K``.

    Parameters
    ----------
    probabilities : np.ndarray, shape (M, N, K)
        Class probabilities of N sources, K >= 2, by M >= 1 predictions.

    Returns
    -------
    dict of str to np.ndarray
        ``mean`` (N, K); ``probability_spread`` (N,), between 0 and 0.5; ``mutual_information`` (N,): 0 if all say
        the same, 1 if K predictions are each certain of another class. NaN where a probability is NaN.

    Raises
    ------
    ValueError
        If the shape is not (M, N, K) with M >= 1 and K >= 2.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim != 3 or len(probabilities) < 1 or probabilities.shape[2] < 2:
        msg = f"probabilities must have shape (M, N, K) with M >= 1 and K >= 2, got {probabilities.shape}"
        raise ValueError(msg)
    mean = probabilities.mean(axis=0)  # (N, K)
    likeliest = mean.argmax(axis=1)[None, :, None]  # NaN counts as the largest, and so stays
    of_likeliest = np.take_along_axis(probabilities, likeliest, axis=2)[..., 0]  # (M, N)
    shared = np.mean([entropy(one) for one in probabilities], axis=0)  # (N,)
    return {
        "mean": mean,
        "probability_spread": of_likeliest.std(axis=0),
        "mutual_information": np.clip(entropy(mean) - shared, 0, 1),  # rounding alone leaves the interval
    }
