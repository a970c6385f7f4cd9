"""What both simulated skies share: a stream of chance for every source, and numbers that are the same everywhere."""

import hashlib
import json

import numpy as np

SIGMA_PER_FWHM = 1 / np.sqrt(8 * np.log(2))


def stream(survey: str, version: int, seed: int, source_id: str, purpose: str) -> np.random.Generator:
    """Return the generator that belongs to one purpose (truth, scene, noise) of one source.

    Nothing else feeds it, so that a source is the same in any order and in any process; a stream for each
    purpose, so that the truth can be had without drawing, and a change of one leaves the others alone.
    """
    key = json.dumps([survey, version, seed, source_id, purpose])
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()))


def quantised(image: np.ndarray, step: float) -> np.ndarray:
    """Return the image as float32 in whole steps.

    FFTs and exponentials differ between processors in their last bits; far coarser steps, themselves far
    below the noise, make the bytes the same. A power of two is exact in float32.
    """
    return (np.round(image / step) * step).astype(np.float32)


def plain(truth: dict) -> dict:
    """Return the truth with Python's own scalars, floats rounded to what a table should show."""
    return {key: round(float(x), 6) if isinstance(x, float) else x for key, x in truth.items()}
