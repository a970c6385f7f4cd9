"""Distances of the simulated sky: flat LCDM of Planck Collaboration (2020), tabulated once.

Astropy's cosmology costs a millisecond a call, a tenth of a picture's time.
"""

from functools import cache

import numpy as np

LARGEST_REDSHIFT = 3.0


@cache
def _table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from astropy.cosmology import Planck18

    redshift = np.geomspace(1e-4, LARGEST_REDSHIFT, 2000)
    return (
        redshift,
        Planck18.distmod(redshift).value,
        Planck18.kpc_proper_per_arcmin(redshift).value / 60,
    )


def distance_modulus_mag(redshift) -> np.ndarray:
    """Apparent minus absolute magnitude; for redshifts of 0.0001 to 3."""
    table, modulus, _ = _table()
    return np.interp(redshift, table, modulus)


def kpc_per_arcsec(redshift) -> np.ndarray:
    """Proper length of an arcsec at this redshift, 0.0001 to 3."""
    table, _, scale = _table()
    return np.interp(redshift, table, scale)
