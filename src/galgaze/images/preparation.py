"""From a cutout to the image that a network sees.

Every function works on one source alone: nothing depends on the sources beside it.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from galgaze import status
from galgaze.config import OpticalPreparation, PreparationSettings, RadioPreparation
from galgaze.files import sha256_json
from galgaze.surveys.base import Cutout

PREPARATION_VERSION = 1  # goes into the stores' names: raise it when the same settings give other pixels

# The Legacy Surveys viewer's colours: band -> (channel of red, green, blue; scale of nanomaggies).
# Formula and numbers: legacysurvey/imagine, map/views.py; the stretch is Lupton et al. 2004's.
VIEWER_BANDS = {"g": (2, 6.0), "r": (1, 3.4), "z": (0, 2.2)}
VIEWER_OFFSET = 0.03
VIEWER_Q = 20.0


@dataclass(frozen=True)
class PreparedImage:
    """What goes into the store for one source.

    Attributes
    ----------
    status : str
        One of `galgaze.status.STATUSES`; only ``ok`` images are predicted.
    status_reason : str
        In words; empty where ok.
    pixels : numpy.ndarray
        (C, H, W) uint8; rows from south to north, columns from east to west (see `Cutout`).
    coverage : float
        Observed fraction of the field of view.
    centre_px : tuple of float
        Column and row of the source.
    jacobian_arcsec : numpy.ndarray
        (2, 2): d(east, north) / d(column, row) of these pixels; NaN where unknown.
    """

    status: str
    status_reason: str
    pixels: np.ndarray
    coverage: float
    centre_px: tuple[float, float]
    jacobian_arcsec: np.ndarray


def preparation_identity(settings: PreparationSettings) -> dict:
    """What a model's card and a store's name say about the preparation."""
    return {**settings.model_dump(), "version": PREPARATION_VERSION}


def store_name(survey: str, survey_identity: dict, settings: PreparationSettings) -> str:
    """Name of the store for a survey and a preparation."""
    return f"{survey}-{sha256_json([survey_identity, preparation_identity(settings)])[:10]}"


def channels(settings: PreparationSettings) -> int:
    """Number of channels of the prepared image."""
    return 3 if settings.kind == "optical_composite" else 1


def prepare(cutout: Cutout, settings: PreparationSettings, las_arcsec: float = float("nan")) -> PreparedImage:
    """Prepare one cutout as the settings say."""
    if isinstance(settings, OpticalPreparation):
        return prepare_optical(cutout, settings)
    return prepare_radio(cutout, settings, las_arcsec)


# ---------------------------------------------------------------------------------------------- optical


def viewer_composite(fluxes: np.ndarray, bands: str = "grz") -> np.ndarray:
    r"""Colours of the Legacy Surveys viewer.

    With :math:`x_b = s_b f_b + m` and :math:`I = \langle \max(0, x_b) \rangle_b`, each band's channel is
    :math:`x_b\, \mathrm{arcsinh}(Q I) / (\sqrt{Q}\, I)`, clipped to 0..1.

    Parameters
    ----------
    fluxes : numpy.ndarray
        (B, H, W), nanomaggies a pixel.
    bands : str
        A letter a plane.

    Returns
    -------
    numpy.ndarray
        (3, H, W) float32 red, green, blue (z, r, g) in 0..1.
    """
    scaled = np.stack([fluxes[i] * VIEWER_BANDS[band][1] + VIEWER_OFFSET for i, band in enumerate(bands)])
    intensity = np.maximum(scaled, 0).mean(axis=0)
    intensity = np.where(intensity == 0, 1e-6, intensity)
    stretch = np.arcsinh(VIEWER_Q * intensity) / (np.sqrt(VIEWER_Q) * intensity)
    colours = np.zeros((3, *fluxes.shape[1:]), np.float32)
    for plane, band in zip(scaled, bands, strict=True):
        colours[VIEWER_BANDS[band][0]] = np.clip(plane * stretch, 0, 1)
    return colours


def prepare_optical(cutout: Cutout, settings: OpticalPreparation) -> PreparedImage:
    """Viewer colours at the served scale, then resampled to the fixed field of view, then uint8.

    The stretch comes before the resampling, so that FITS and the viewer's JPEG give the same picture. A
    picture of unknown scale is taken whole.
    """
    if cutout.rendered:
        colours = cutout.pixels.astype(np.float32) / 255
    else:
        colours = viewer_composite(cutout.pixels, cutout.bands) * cutout.observed
    size = settings.size_px
    scale = cutout.pixel_scale_arcsec
    if np.isfinite(scale):
        step_px = settings.field_of_view_arcsec / size / scale
    else:
        step_px = max(colours.shape[1:]) / size
    colours = resample(colours, cutout.centre_px, step_px, size)
    observed = resample(cutout.observed[None].astype(np.float32), cutout.centre_px, step_px, size)[0]
    coverage = float((observed > 0.5).mean())
    centre = ((size - 1) / 2, (size - 1) / 2)
    state, reason = _judge_coverage(coverage, settings.min_coverage)
    pixels = np.round(np.clip(colours, 0, 1) * 255).astype(np.uint8)
    if state == status.OK and pixels.min() == pixels.max():
        state, reason = status.NO_SIGNAL, "the colour composite is constant"
    return PreparedImage(state, reason, pixels, coverage, centre, cutout.jacobian_arcsec * step_px)


def resample(pixels: np.ndarray, centre_px: tuple[float, float], step_px: float, size: int) -> np.ndarray:
    """Resample onto a square grid around a centre, with linear interpolation.

    Parameters
    ----------
    pixels : numpy.ndarray
        (C, H, W) float32.
    centre_px : tuple of float
        Column and row that come to stand in the middle, at ((size - 1) / 2, (size - 1) / 2).
    step_px : float
        Old pixels a new pixel. Above 1, a Gaussian of sigma (step - 1) / 2 old pixels first removes
        what the new grid cannot hold.
    size : int
        Side of the new grid.

    Returns
    -------
    numpy.ndarray
        (C, size, size) float32; 0 outside of the old grid.
    """
    column, row = centre_px
    offset = [row - step_px * (size - 1) / 2, column - step_px * (size - 1) / 2]
    sigma = max(0.0, (step_px - 1) / 2)
    planes = []
    for plane in pixels:
        if sigma > 0:
            plane = ndimage.gaussian_filter(plane, sigma, mode="nearest", truncate=3.0)
        planes.append(
            ndimage.affine_transform(
                plane, [step_px, step_px], offset, (size, size), order=1, mode="grid-constant", cval=0.0
            )
        )
    return np.stack(planes).astype(np.float32)


# ------------------------------------------------------------------------------------------------ radio


def prepare_radio(cutout: Cutout, settings: RadioPreparation, las_arcsec: float = float("nan")) -> PreparedImage:
    """Clip and scale a radio map as the images of Bowles et al. 2021 (arXiv:2012.01248) were.

    Sigma is the standard deviation after sigma clipping (3 sigma, 5 rounds) of the whole map as served,
    the image its centre; pixels up to ``clip_sigma`` times sigma become 0 (the level is not above the
    mean), the rest is scaled by the image's minimum and maximum to 0..255 and truncated.
    Unobserved pixels are 0 and do not count towards sigma.
    """
    if cutout.rendered:
        return _prepare_radio_picture(cutout, settings)
    sigma = clipped_standard_deviation(cutout.pixels[0][cutout.observed]) if cutout.observed.any() else 0.0
    image, centre = crop(cutout.pixels[0], cutout.centre_px, settings.size_px)
    observed, _ = crop(cutout.observed, cutout.centre_px, settings.size_px)
    coverage = float(observed.mean())
    image = np.where(image > settings.clip_sigma * sigma, image, 0)
    if settings.mask_las and np.isfinite(las_arcsec):
        image = np.where(_distance_arcsec(image.shape, centre, cutout.jacobian_arcsec) <= las_arcsec / 2, image, 0)
    state, reason = _judge_coverage(coverage, settings.min_coverage)
    low, high = float(image.min()), float(image.max())
    if high > low:
        pixels = ((image - low) / (high - low) * 255).astype(np.uint8)
    else:
        pixels = np.zeros(image.shape, np.uint8)
        if state == status.OK:
            state, reason = status.NO_SIGNAL, f"no pixel above {settings.clip_sigma:g} sigma"
    return PreparedImage(state, reason, pixels[None], coverage, centre, cutout.jacobian_arcsec)


def _prepare_radio_picture(cutout: Cutout, settings: RadioPreparation) -> PreparedImage:
    """A picture (PNG, JPEG) counts as clipped and scaled already: it is only brought to size."""
    grey = cutout.pixels.astype(np.float32).mean(axis=0)
    step_px = max(grey.shape) / settings.size_px
    size = settings.size_px
    pixels = np.round(resample(grey[None], cutout.centre_px, step_px, size)).astype(np.uint8)
    constant = pixels.min() == pixels.max()
    state, reason = (status.NO_SIGNAL, "the picture is constant") if constant else (status.OK, "")
    centre = ((size - 1) / 2, (size - 1) / 2)
    return PreparedImage(state, reason, pixels, 1.0, centre, cutout.jacobian_arcsec * step_px)


def clipped_standard_deviation(values: np.ndarray) -> float:
    """Standard deviation after clipping at 3 sigma around the median, five times (as astropy's)."""
    from astropy.stats import sigma_clipped_stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(sigma_clipped_stats(values, sigma=3.0, maxiters=5)[2])


def crop(plane: np.ndarray, centre_px: tuple[float, float], size: int) -> tuple[np.ndarray, tuple[float, float]]:
    """Cut whole pixels around a centre; outside of the plane stands 0.

    Returns
    -------
    image : numpy.ndarray
        (size, size).
    centre_px : tuple of float
        Where the centre stands in it: within half a pixel of the middle.
    """
    image = np.zeros((size, size), plane.dtype)
    first = [round(centre - (size - 1) / 2) for centre in centre_px]  # column, row
    (column, row), (height, width) = first, plane.shape
    left, right = max(column, 0), min(column + size, width)
    bottom, top = max(row, 0), min(row + size, height)
    if left < right and bottom < top:
        image[bottom - row : top - row, left - column : right - column] = plane[bottom:top, left:right]
    return image, (centre_px[0] - column, centre_px[1] - row)


def _distance_arcsec(shape: tuple[int, int], centre_px, jacobian_arcsec: np.ndarray) -> np.ndarray:
    rows, columns = np.indices(shape)
    offsets = np.stack([columns - centre_px[0], rows - centre_px[1]])  # (2, H, W)
    return np.linalg.norm(np.einsum("ij,jhw->ihw", jacobian_arcsec, offsets), axis=0)


def _judge_coverage(coverage: float, minimum: float) -> tuple[str, str]:
    if coverage == 0:
        return status.NO_COVERAGE, "nothing of the field of view was observed"
    if coverage < minimum:
        return status.PARTIAL_COVERAGE, f"{coverage:.0%} of the field of view was observed, {minimum:.0%} are needed"
    return status.OK, ""
