"""A simulated radio map: the source, unrelated neighbours, sidelobes and noise.

A snapshot of the VLA's three arms samples the plane of spatial frequencies along a six-pointed star. What CLEAN leaves
of the sidelobes, and the noise, both carry this star: in real FIRST maps one sees it as stripes in three directions.
"""

from functools import lru_cache

import numpy as np
from scipy import fft

from galgaze.surveys.simulated.noise import quantised, stream
from galgaze.surveys.simulated.radio.shapes import draw_blobs, source_blobs
from galgaze.surveys.simulated.radio.truth import SKY_VERSION, STAR_STEPS, check_truth, radio_truth

STEP_JY_PER_BEAM = 2.0**-20

# Unrelated sources: 90 a square degree above 1 mJy (White et al. 1997, FIRST's counts), over a square as large as the
# largest image (1024 px of 1.8 arcsec): the same sky, whatever part of it the image shows.
NEIGHBOURS_PER_DEG2 = 90.0
NEIGHBOUR_FIELD_ARCSEC = 1844.0
NEIGHBOUR_LEAST_JY, NEIGHBOUR_LARGEST_JY = 1e-3, 0.1
NEIGHBOUR_COUNT_SLOPE = 0.9  # N(> S) is as S^-0.9 from 1 to 100 mJy
NEIGHBOUR_DOUBLES = 0.2  # share that shows two components

# Power of FIRST's noise over spatial frequency, such that blank corners (50 x 50 px) of simulated maps have the mean
# power of 1946 such corners of MiraBest's: far from a smoothed white noise, it has ripples of many beams, and ends
# where the longest baselines do.
NOISE_FREQUENCY_PER_ARCSEC = np.arange(24) / 50 / 1.8
NOISE_POWER = np.array(
    [
        *(6.9, 6.9, 2.3, 1.0, 0.87, 0.61, 0.45, 0.42, 0.35, 0.32, 0.27, 0.23),
        *(0.19, 0.175, 0.12, 0.08, 0.062, 0.042, 0.033, 0.018, 0.011, 0.006, 0.002, 0.0),
    ]
)
NOISE_STAR = 0.6  # power varies with cos(6 angle), by 0.55 of its mean as in the corners
SIDELOBE_STAR = 2.0  # a single snapshot's star is sharper than that of the co-added noise
MARGIN_PX = 20  # drawn beyond the image: filters wrap around


def radio_brightness(
    truth: dict, rng: np.random.Generator, size_px: int, pixel_scale_arcsec: float, background: bool = True
) -> np.ndarray:
    """Draw the source without noise and sidelobes.

    Parameters
    ----------
    truth : dict
        As of `radio_truth`. Classes, sizes in kpc and component fluxes follow from the other keys and are not read.
    rng : numpy.random.Generator
        Makes the knots and the unrelated sources.
    size_px, pixel_scale_arcsec : int, float
        Of the square image.
    background : bool
        Whether to draw unrelated sources.

    Returns
    -------
    numpy.ndarray
        (H, W) float64 in Jy/beam; row 0 is south, column 0 is east.

    Raises
    ------
    ValueError
        If the truth holds an unknown morphology or a parameter out of its range.
    """
    check_truth(truth)
    blobs = source_blobs(truth, rng)
    if background:
        blobs = np.concatenate([blobs, _neighbours(rng)])
    return draw_blobs(blobs, size_px, pixel_scale_arcsec)


def draw_radio(
    seed: int,
    source_id: str,
    size_px: int = 300,
    pixel_scale_arcsec: float = 1.8,
    mix: dict[str, float] | None = None,
) -> np.ndarray:
    """Draw a radio source as FIRST would serve it.

    Parameters
    ----------
    seed : int
        Of the sky.
    source_id : str
        Any text.
    size_px, pixel_scale_arcsec : int, float
        Of the square image.
    mix : dict, optional
        Relative share of each morphology, as for `radio_truth`.

    Returns
    -------
    numpy.ndarray
        (H, W) float32 in Jy/beam; row 0 is south, column 0 is east.
    """
    truth = radio_truth(seed, source_id, mix)
    scene_rng, noise_rng = (
        stream("first-simulated", SKY_VERSION, seed, source_id, purpose) for purpose in ("scene", "noise")
    )
    wide = size_px + MARGIN_PX
    wide = fft.next_fast_len(wide + wide % 2, real=True)
    wide += (wide - size_px) % 2  # the same number of pixels on either side
    sky = radio_brightness(truth, scene_rng, wide, pixel_scale_arcsec)
    star = round(truth["beam_star_deg"] * STAR_STEPS / 60) % STAR_STEPS
    sidelobes, noise = _filters(wide, pixel_scale_arcsec, star)
    white = noise_rng.standard_normal((2, *noise.shape), dtype=np.float32)
    spectrum = truth["sidelobe_fraction"] * sidelobes * fft.rfft2(sky)
    spectrum += truth["noise_jy_per_beam"] * noise * (white[0] + 1j * white[1])
    image = sky + fft.irfft2(spectrum, sky.shape)
    edge = (wide - size_px) // 2
    return quantised(image[edge : edge + size_px, edge : edge + size_px], STEP_JY_PER_BEAM)


def _neighbours(rng: np.random.Generator) -> np.ndarray:
    """Return rows of flux_jy, east_arcsec, north_arcsec, sigma_arcsec of unrelated sources."""
    number = rng.poisson(NEIGHBOURS_PER_DEG2 * (NEIGHBOUR_FIELD_ARCSEC / 3600) ** 2)
    flux = NEIGHBOUR_LEAST_JY * (1 - rng.random(number)) ** (-1 / NEIGHBOUR_COUNT_SLOPE)
    flux = np.minimum(flux, NEIGHBOUR_LARGEST_JY)
    place = NEIGHBOUR_FIELD_ARCSEC * (rng.random((2, number)) - 0.5)
    sigma = np.clip(0.7 * np.exp(rng.standard_normal(number)), 0.1, 6)
    double = rng.random(number) < NEIGHBOUR_DOUBLES
    half_gap = np.clip(6 * np.exp(0.6 * rng.standard_normal(number)), 2, 25) * double
    angle, share = rng.uniform(0, 2 * np.pi, number), np.where(double, rng.uniform(0.25, 0.75, number), 0.5)
    shift = half_gap * np.array([np.sin(angle), np.cos(angle)])
    sides = [
        np.column_stack([part * flux, *(place + sign * shift), sigma]) for sign, part in ((1, share), (-1, 1 - share))
    ]
    return np.concatenate(sides)


@lru_cache(maxsize=2 * STAR_STEPS)
def _filters(size_px: int, pixel_scale_arcsec: float, star: int) -> tuple[np.ndarray, np.ndarray]:
    """Return factors on the spectrum (of `rfft2`) for the sidelobes and for noise of unit standard deviation."""
    north = fft.fftfreq(size_px, pixel_scale_arcsec)[:, None]
    east = -fft.rfftfreq(size_px, pixel_scale_arcsec)[None]
    frequency, angle = np.hypot(east, north), np.arctan2(east, north)
    wave = np.cos(6 * (angle - np.radians(60 * star / STAR_STEPS)))
    power = np.interp(frequency, NOISE_FREQUENCY_PER_ARCSEC, NOISE_POWER) * np.exp(NOISE_STAR * wave)
    # A column of `rfft2` stands for two, but for the first and the last of an even size.
    columns = np.full(east.shape, 2.0)
    columns[0, 0] = 1
    if size_px % 2 == 0:
        columns[0, -1] = 1
    # White noise that is complex and not hermitian loses half its power in those columns: they get it twice.
    noise = np.sqrt(power / (power * columns).sum() * np.where(columns == 1, 2, 1) / 2) * size_px**2
    sidelobes = np.exp(SIDELOBE_STAR * wave)
    sidelobes = sidelobes / sidelobes.mean() - 1  # none where the beam is a full circle
    sidelobes[0, 0] = 0  # stripes and bowls balance each other
    return sidelobes.astype(np.float32), noise.astype(np.float32)
