"""Which galaxies a survey of bright galaxies sees: luminosities, redshifts and sizes after published laws."""

from functools import cache

import numpy as np

from galgaze.surveys.simulated.cosmology import distance_modulus_mag, kpc_per_arcsec

# Schechter function of SDSS galaxies in r (Blanton et al. 2003, ApJ 592, 819: M* - 5 log h = -20.44,
# alpha = -1.05), for h = 0.7.
SCHECHTER_MAG, SCHECHTER_SLOPE = -21.21, -1.05
BRIGHTEST_MAG, FAINTEST_MAG = -24.0, -17.0
# Galaxy Zoo DECaLS (Walmsley et al. 2022, MNRAS 509, 3966) took its galaxies from the NASA-Sloan Atlas:
# z < 0.15 and r < 17.77. The fainter ones hardly reach the votes that Galaxy10 asks for.
LEAST_REDSHIFT, LARGEST_REDSHIFT = 0.008, 0.15
BRIGHTEST_APPARENT_MAG, FAINTEST_APPARENT_MAG = 13.0, 17.5
# Half-light radius in kpc against absolute magnitude (Shen et al. 2003, MNRAS 343, 978, fits to Sersic
# radii, circularised): log R = -0.4 a M + (b - a) log(1 + 10^(-0.4 (M - M0))) + c for late types,
# log R = -0.4 a M + b for early ones; log-normal scatter from SCATTER_FAINT to SCATTER_BRIGHT.
LATE_A, LATE_B, LATE_C, LATE_MAG = 0.26, 0.51, -1.71, -20.91
EARLY_A, EARLY_B = 0.65, -5.06
SCATTER_FAINT, SCATTER_BRIGHT = 0.45, 0.27
CANDIDATES = 512


@cache
def _magnitudes() -> tuple[np.ndarray, np.ndarray]:
    """Cumulative Schechter function, and the absolute magnitudes it belongs to."""
    magnitude = np.linspace(BRIGHTEST_MAG, FAINTEST_MAG, 1000)
    luminosity = 10 ** (0.4 * (SCHECHTER_MAG - magnitude))
    density = luminosity ** (SCHECHTER_SLOPE + 1) * np.exp(-luminosity)
    cumulative = np.cumsum(density)
    return cumulative / cumulative[-1], magnitude


def half_light_radius_kpc(absolute_mag: np.ndarray, late: bool) -> np.ndarray:
    """Median circularised half-light radius at this absolute r magnitude (Shen et al. 2003)."""
    if not late:
        return 10 ** (-0.4 * EARLY_A * absolute_mag + EARLY_B)
    knee = np.log10(1 + 10 ** (-0.4 * (absolute_mag - LATE_MAG)))
    return 10 ** (-0.4 * LATE_A * absolute_mag + (LATE_B - LATE_A) * knee + LATE_C)


def draw_galaxy(rng: np.random.Generator, late: bool, least_arcsec: float, largest_arcsec: float) -> dict:
    """Draw one galaxy of a flux-limited sample whose half-light radius is in this range.

    Returns
    -------
    dict
        ``redshift``, ``absolute_r_mag``, ``r_mag`` and ``circular_half_light_radius_arcsec``.
    """
    while True:
        # space is as large as the cube of the redshift, this near
        redshift = LARGEST_REDSHIFT * rng.random(CANDIDATES) ** (1 / 3)
        cumulative, magnitude = _magnitudes()
        absolute = np.interp(rng.random(CANDIDATES), cumulative, magnitude)
        apparent = absolute + distance_modulus_mag(redshift) + redshift  # K correction of about z in r
        scatter = SCATTER_BRIGHT + (SCATTER_FAINT - SCATTER_BRIGHT) / (1 + 10 ** (-0.8 * (absolute - LATE_MAG)))
        radius_kpc = half_light_radius_kpc(absolute, late) * np.exp(scatter * rng.standard_normal(CANDIDATES))
        radius = radius_kpc / kpc_per_arcsec(redshift)
        seen = (redshift > LEAST_REDSHIFT) & (apparent > BRIGHTEST_APPARENT_MAG) & (apparent < FAINTEST_APPARENT_MAG)
        found = np.flatnonzero(seen & (radius > least_arcsec) & (radius < largest_arcsec))
        if found.size:
            first = found[0]
            return {
                "redshift": redshift[first],
                "absolute_r_mag": absolute[first],
                "r_mag": apparent[first],
                "circular_half_light_radius_arcsec": radius[first],
            }
