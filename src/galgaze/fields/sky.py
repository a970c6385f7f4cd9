"""Positions as points on the unit sphere, for searches among neighbours that know no poles and no RA 0."""

import numpy as np


def unit_vectors(ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
    """Points on the unit sphere, (N, 3), of positions in degrees, (N,) each."""
    ra, dec = np.radians(np.asarray(ra_deg)), np.radians(np.asarray(dec_deg))
    return np.column_stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])


def chord(angle_arcsec: float) -> float:
    """Straight distance of two points on the unit sphere that are so far apart on the sky."""
    return float(2 * np.sin(np.radians(angle_arcsec / 3600) / 2))
