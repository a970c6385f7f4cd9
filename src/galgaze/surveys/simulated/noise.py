"""Chance and noise of the simulated sky: a stream of numbers for every source, and what a survey adds."""

import hashlib
import json

import numpy as np
from scipy.ndimage import correlate1d

SIGMA_PER_FWHM = 1 / np.sqrt(8 * np.log(2))


def stream(survey: str, version: int, seed: int, source_id: str, purpose: str) -> np.random.Generator:
    """Return the generator that belongs to one purpose (truth, scene, noise) of one source.

    Nothing else feeds it, so that a source is the same in any order and in any process; a stream for each
    purpose, so that the truth can be had without drawing, and a change of one leaves the others alone.
    """
    key = json.dumps([survey, version, seed, source_id, purpose])
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()))


def correlated_noise(rng: np.random.Generator, shape: tuple[int, int], fwhm_px: float) -> np.ndarray:
    """Return noise of unit standard deviation, smoothed by a Gaussian beam of this width."""
    sigma = fwhm_px * SIGMA_PER_FWHM
    reach = int(np.ceil(4 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= np.sqrt(np.sum(weights**2))  # the variance stays one, whatever the beam
    white = rng.standard_normal((shape[0] + 2 * reach, shape[1] + 2 * reach), dtype=np.float32)
    # Only whole overlaps are kept: at an edge of reflected or wrapped noise the statistics would differ.
    # In double precision, or a last bit could show in `quantised`.
    smooth = correlate1d(correlate1d(white.astype(float), weights, axis=0)[reach:-reach], weights, axis=1)
    return smooth[:, reach:-reach]


def quantised(image: np.ndarray, step: float) -> np.ndarray:
    """Return the image as float32 in whole steps.

    FFTs and exponentials differ between processors in their last bits; far coarser steps, themselves far
    below the noise, make the bytes the same. A power of two is exact in float32.
    """
    return (np.round(image / step) * step).astype(np.float32)


def plain(truth: dict) -> dict:
    """Return the truth with Python's own scalars, floats rounded to what a table should show."""
    return {key: round(float(x), 6) if isinstance(x, float) else x for key, x in truth.items()}
