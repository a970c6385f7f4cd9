"""The picture around the galaxy: stars, faint galaxies and noise, at the scale asked for."""

import numpy as np
from scipy import ndimage

from galgaze.surveys.simulated.noise import quantised
from galgaze.surveys.simulated.optical.artefacts import put_artefact
from galgaze.surveys.simulated.optical.canvas import FRAME_ARCSEC, NATIVE_PIXEL_ARCSEC, Canvas
from galgaze.surveys.simulated.optical.disc import polar
from galgaze.surveys.simulated.optical.galaxies import put_galaxy
from galgaze.surveys.simulated.optical.truth import BANDS, chance, in_bands
from galgaze.tasks import OPTICAL_MORPHOLOGY

STEP_NANOMAGGY = 2.0**-14
MEDIAN_STARS, STARS_SCATTER = 5, 0.6  # brighter than r = 23.5; ln scatter with galactic latitude
BRIGHTEST_STAR_MAG, FAINTEST_STAR_MAG, STAR_COUNTS_SLOPE = 14.5, 23.5, 0.15  # log10 counts a mag, high latitude
MEAN_GALAXIES = 22
BRIGHTEST_GALAXY_MAG, FAINTEST_GALAXY_MAG, GALAXY_COUNTS_SLOPE = 18.0, 23.5, 0.35  # Yasuda et al. 2001
CLEAR_ARCSEC = 2.5  # nothing is put so near to the source
# Noise of neighbouring native pixels is correlated by the resampling of the exposures: 0.25 at one pixel, -0.08
# at two, as in cutouts that the viewer served.
NOISE_KERNEL = np.array([-0.05, 0.14, 1.0, 0.14, -0.05])
NOISE_KERNEL /= np.sqrt(np.sum(NOISE_KERNEL**2))


def _magnitudes(rng: np.random.Generator, number: int, brightest: float, faintest: float, slope: float) -> np.ndarray:
    """Draw from counts that grow by 10^slope a magnitude."""
    low, high = 10 ** (slope * brightest), 10 ** (slope * faintest)
    return np.log10(low + (high - low) * rng.random(number)) / slope


def _places(rng: np.random.Generator, number: int):
    distance = np.sqrt(rng.uniform(CLEAR_ARCSEC**2, (0.7 * FRAME_ARCSEC) ** 2, number))
    return polar(distance, rng.uniform(0, 360, number))


def _fluxes(magnitudes: np.ndarray, colours: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    rows = [in_bands(10 ** (0.4 * (22.5 - m)), c, o) for m, c, o in zip(magnitudes, colours, offsets, strict=True)]
    return np.array(rows).reshape(-1, 3)


def put_field(canvas: Canvas, rng: np.random.Generator) -> None:
    """Put stars and faint galaxies around the source, none of them on it."""
    number = rng.poisson(MEDIAN_STARS * np.exp(STARS_SCATTER * rng.standard_normal()))
    magnitudes = _magnitudes(rng, number, BRIGHTEST_STAR_MAG, FAINTEST_STAR_MAG, STAR_COUNTS_SLOPE)
    # The stellar locus: many red dwarfs, redder in r - z than galaxies of their g - r; fewer blue ones.
    red = rng.random(number) < 0.55
    colours = np.where(red, rng.normal(1.35, 0.12, number), rng.uniform(0.2, 1.1, number))
    offsets = np.where(red, rng.uniform(-0.1, 0.8, number), rng.normal(-0.25, 0.08, number))
    fluxes = _fluxes(magnitudes, colours, offsets)
    # Cores of bright stars saturate in one band and not in the other, which gives them false colours.
    bright = magnitudes < 17.5
    fluxes[bright] *= np.exp(rng.normal(0, 0.35, (int(bright.sum()), 3)))
    canvas.add_blobs(fluxes, *_places(rng, number))
    _put_faint_galaxies(canvas, rng)


def _put_faint_galaxies(canvas: Canvas, rng: np.random.Generator):
    """Galaxies little larger than the seeing: three blobs in a row give a size, a direction and a core."""
    number = rng.poisson(MEAN_GALAXIES)
    magnitudes = _magnitudes(rng, number, BRIGHTEST_GALAXY_MAG, FAINTEST_GALAXY_MAG, GALAXY_COUNTS_SLOPE)
    fluxes = _fluxes(magnitudes, rng.uniform(0.3, 1.5, number), rng.normal(0, 0.15, number))
    east, north = _places(rng, number)
    size = 0.35 * 10 ** (0.13 * (22.5 - magnitudes)) * np.exp(rng.normal(0, 0.3, number))
    step_east, step_north = polar(size * rng.uniform(0, 1.2, number), rng.uniform(0, 180, number))
    for side, share in ((-1, 0.25), (0, 0.5), (1, 0.25)):
        width = size * (0.8 if side else 0.5)
        canvas.add_blobs(share * fluxes, east + side * step_east, north + side * step_north, width)


def optical_brightness(truth: dict, rng: np.random.Generator, side_px: int, field: bool = True) -> np.ndarray:
    """Draw the galaxy without noise: (3, side, side), nanomaggies a native pixel of 0.262 arcsec.

    ``rng`` makes what the truth does not name: places of knots and clumps, the field around.

    Raises
    ------
    ValueError
        If a parameter of the truth is out of its range.
    """
    _check_truth(truth)
    canvas = Canvas(side_px)
    put_galaxy(canvas, truth, rng)
    if field:
        put_field(canvas, rng)
    return canvas.seen([truth[f"psf_fwhm_{band}_arcsec"] for band in BANDS])


# What must be above 0, and what must lie between 0 and 1, where it is not None.
_POSITIVE = ("half_light_radius_arcsec", "axis_ratio", "sersic_index", "bulge_half_light_radius_arcsec", "n_arms")
_FRACTIONS = ("bulge_fraction", "bar_fraction", "arm_fraction", "clump_fraction", "tidal_fraction", "axis_ratio")


def _check_truth(truth: dict):
    if truth["class_label"] not in OPTICAL_MORPHOLOGY.classes:
        known = ", ".join(OPTICAL_MORPHOLOGY.classes)
        raise ValueError(f"truth: no such class: {truth['class_label']!r}. Known: {known}.")
    for key, value in truth.items():
        if isinstance(value, float) and not np.isfinite(value):
            raise ValueError(f"truth: {key} is {value}; give a finite number, or None where there is no such thing.")
    for key in _POSITIVE:
        if truth[key] is not None and not truth[key] > 0:
            raise ValueError(f"truth: {key} is {truth[key]}; it must be above 0.")
    for key in _FRACTIONS:
        if truth[key] is not None and not 0 <= truth[key] <= 1:
            raise ValueError(f"truth: {key} is {truth[key]}; it must lie between 0 and 1.")


def _noise(rng: np.random.Generator, side_px: int) -> np.ndarray:
    """Noise of unit standard deviation with the correlation of coadded exposures: (3, side, side)."""
    reach = len(NOISE_KERNEL) // 2
    white = rng.standard_normal((3, side_px + 2 * reach, side_px + 2 * reach), dtype=np.float32)
    smooth = ndimage.correlate1d(white, NOISE_KERNEL, axis=1, output=np.float64)
    smooth = ndimage.correlate1d(smooth, NOISE_KERNEL, axis=2)
    return smooth[:, reach:-reach, reach:-reach]


def draw_optical(
    truth: dict, seed: int, source_id: str, size_px: int = 256, pixel_scale_arcsec: float = NATIVE_PIXEL_ARCSEC
) -> np.ndarray:
    """Draw a galaxy as DECaLS would serve it.

    Parameters
    ----------
    truth : dict
        Of `optical_truth` with the same seed and source.
    seed : int
        Of the sky.
    source_id : str
        Any text.
    size_px, pixel_scale_arcsec : int, float
        Of the square image.

    Returns
    -------
    numpy.ndarray
        (3, H, W) float32, bands g r z; row 0 is south, column 0 is east. As the viewer does, in nanomaggies per
        native pixel of 0.262 arcsec whatever the scale asked for; 0 where nothing was observed.

    Raises
    ------
    ValueError
        If a parameter of the truth is out of its range.
    """
    side = side_needed(size_px, pixel_scale_arcsec)
    image = optical_brightness(truth, chance(seed, source_id, "scene"), side)
    sigma = np.array([truth[f"noise_{band}_nanomaggy"] for band in BANDS])
    image += sigma[:, None, None] * _noise(chance(seed, source_id, "noise"), side)
    observed = put_artefact(image, truth["artefact"], chance(seed, source_id, "artefact"))
    image = resampled(image, size_px, pixel_scale_arcsec)
    image = quantised(image, STEP_NANOMAGGY)
    image[image == 0] = STEP_NANOMAGGY  # 0 is how a survey's file says "not observed"
    if observed is not None:
        image[resampled(observed, size_px, pixel_scale_arcsec) < 0.5] = 0
    return image


def side_needed(size_px: int, pixel_scale_arcsec: float) -> int:
    """Return how many native pixels an image of this size covers, with a rim to interpolate in."""
    if pixel_scale_arcsec == NATIVE_PIXEL_ARCSEC:
        return size_px
    side = int(np.ceil(size_px * max(pixel_scale_arcsec / NATIVE_PIXEL_ARCSEC, 0.1))) + 8
    return side + side % 2


def resampled(image: np.ndarray, size_px: int, pixel_scale_arcsec: float) -> np.ndarray:
    """Return native pixels (3, N, N) at the scale asked for: cubic splines where finer, means where coarser."""
    if pixel_scale_arcsec == NATIVE_PIXEL_ARCSEC:
        return image
    step = pixel_scale_arcsec / NATIVE_PIXEL_ARCSEC
    if step > 1:
        image = ndimage.uniform_filter1d(image, max(1, round(step)), axis=1, mode="nearest")
        image = ndimage.uniform_filter1d(image, max(1, round(step)), axis=2, mode="nearest")
    middle = (image.shape[1] - 1) / 2 - step * (size_px - 1) / 2
    # An even window's mean lies half a pixel before its pixel.
    middle += 0.5 * (step > 1 and round(step) % 2 == 0)
    order = 3 if step < 1 else 1
    planes = [
        ndimage.affine_transform(plane, [step, step], [middle, middle], (size_px, size_px), order=order, mode="nearest")
        for plane in image
    ]
    return np.stack(planes)
