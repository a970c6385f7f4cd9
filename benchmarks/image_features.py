"""Numbers that say what an image of a galaxy looks like: pixels, noise, neighbours, sizes, shapes.

They are taken on the networks' inputs, so that what differs between two sets is what a network can learn to tell
them apart by. Prepared optical images are stretched (arcsinh) and prepared radio images clipped, so these are no
physical concentrations and sizes; they are to be compared with each other, not with the literature.
"""

import warnings

import numpy as np
from photutils.segmentation import detect_sources
from scipy import ndimage, stats

from galgaze.images.preparation import clipped_standard_deviation

POWER_BINS, POWER_PATCH_PX = 8, 32  # of the noise power spectrum, 0 to 0.5 cycles a pixel
LEAST_BLANK = 0.9  # share of a corner that must be free of sources for its power spectrum
CENTRE_RADIUS_PX = 6  # the central source covers a pixel within this distance of the image's centre
WRONG_FLAG = 2  # statmorph's: 0 good, 1 suspect, 2 bad, 4 catastrophic
RADIO_PIXEL_ARCSEC, BEAM_PX = 1.8, 3
SPECK_PX = 3  # islands of up to so many kept pixels are noise that passed the clip
SOURCE_LEVEL = 0.1  # of the maximum: what is above belongs to a source


# --------------------------------------------------------------------------------------------- optical


def optical_features(image: np.ndarray, pixel_scale_arcsec: float) -> tuple[dict[str, float], np.ndarray, str]:
    """Measure a colour composite.

    Parameters
    ----------
    image : numpy.ndarray
        (3, H, W) uint8: red, green, blue.
    pixel_scale_arcsec : float
        Side of a pixel.

    Returns
    -------
    features : dict of float
        By name; NaN where it could not be measured.
    power : numpy.ndarray
        (POWER_BINS,): noise power spectrum over its mean; NaN where no corner is blank.
    failure : str
        Why the central source's shape could not be measured; empty where it could.
    """
    mean = image.mean(axis=0)
    segments = find_sources(mean)
    blank = ~ndimage.binary_dilation(segments > 0, iterations=3)
    residual = np.where(blank, mean - np.median(mean[blank]), 0.0)
    label = central_label(segments)
    shape, failure = central_shape(mean, segments, label, blank, pixel_scale_arcsec)
    features = {
        **_pixel_features(image, mean),
        **_background_features(image, mean, blank),
        **_source_features(image, segments, label, blank),
        **shape,
    }
    return features, noise_power(residual, blank), failure


def _pixel_features(image: np.ndarray, mean: np.ndarray) -> dict[str, float]:
    levels = {f"pixel_p{share}": float(np.percentile(mean, share)) for share in (5, 25, 50, 75, 95, 99)}
    return levels | {"pixel_saturated_share": float((image == 255).any(axis=0).mean())}


def _background_features(image: np.ndarray, mean: np.ndarray, blank: np.ndarray) -> dict[str, float]:
    """Level, noise and its correlation, between pixels and between channels, where no source is."""
    features = {}
    for name, plane in zip(("red", "green", "blue"), image.astype(float), strict=True):
        features[f"sky_level_{name}"] = float(plane[blank].mean())
        features[f"sky_noise_{name}"] = clipped_standard_deviation(plane[blank])
    residual = mean - np.median(mean[blank])
    with np.errstate(invalid="ignore"):  # a channel without any noise
        matrix = np.corrcoef(image[:, blank].astype(float))
    return features | {
        "sky_noise_mean": clipped_standard_deviation(mean[blank]),
        "sky_noise_lag1": autocorrelation(residual, blank, 1),
        "sky_noise_lag2": autocorrelation(residual, blank, 2),
        "sky_noise_lag4": autocorrelation(residual, blank, 4),
        "sky_noise_red_green": float(matrix[0, 1]),
        "sky_noise_green_blue": float(matrix[1, 2]),
        "sky_blank_share": float(blank.mean()),
    }


SOURCE_NAMES = ("source_peak", "source_area_px", "colour_red_blue", "colour_spread")


def _source_features(image: np.ndarray, segments: np.ndarray, label: int, blank: np.ndarray) -> dict[str, float]:
    """Colour, brightness and neighbours of the central source."""
    light = image.astype(float) - np.median(image[:, blank], axis=1)[:, None, None]
    inside, others = segments == label, (segments > 0) & (segments != label)
    sums = light.sum(axis=0)
    features = {
        "neighbours": float(len(np.unique(segments[others]))),
        "neighbours_light_share": float(sums[others].sum() / sums[segments > 0].sum()) if others.any() else 0.0,
        "neighbours_brightest": float(light.mean(axis=0)[others].max()) if others.any() else np.nan,
    }
    if not label:
        return features | dict.fromkeys(SOURCE_NAMES, np.nan)
    red, _, blue = light[:, inside]
    colour = (red - blue) / np.maximum(light[:, inside].mean(axis=0), 1)
    return features | {
        "source_peak": float(light.mean(axis=0)[inside].max()),
        "source_area_px": float(inside.sum()),
        "colour_red_blue": float(np.median(colour)),
        "colour_spread": float(np.subtract(*np.percentile(colour, (84, 16)))),
    }


SHAPE_NAMES = (
    "half_light_radius_arcsec",
    "concentration",
    "asymmetry",
    "smoothness",
    "gini",
    "m20",
    "ellipticity",
    "sersic_index",
)


def central_shape(
    mean: np.ndarray, segments: np.ndarray, label: int, blank: np.ndarray, pixel_scale_arcsec: float
) -> tuple[dict[str, float], str]:
    """Shape of the central source, by statmorph, and why there is none."""
    import statmorph

    nothing = dict.fromkeys(SHAPE_NAMES, np.nan)
    if not label:
        return nothing, "no central source"
    others = (segments > 0) & (segments != label)
    noise = max(clipped_standard_deviation(mean[blank]), 0.1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shape = statmorph.SourceMorphology(
                mean - np.median(mean[blank]), (segments == label).astype(int), 1, mask=others,
                weightmap=np.full(mean.shape, noise),
            )  # fmt: skip
    except Exception as error:  # statmorph raises many kinds, AssertionError among them
        return nothing, f"statmorph: {type(error).__name__}"
    if shape.flag >= WRONG_FLAG:
        return nothing, f"statmorph: flag {shape.flag}"
    values = (
        shape.rhalf_circ * pixel_scale_arcsec, shape.concentration, shape.asymmetry, shape.smoothness, shape.gini,
        shape.m20, shape.ellipticity_asymmetry, shape.sersic_n if shape.flag_sersic == 0 else np.nan,
    )  # fmt: skip
    return {name: _known(value) for name, value in zip(SHAPE_NAMES, values, strict=True)}, ""


def _known(value: float) -> float:
    return float(value) if np.isfinite(value) and value != -99 else np.nan  # -99 is statmorph's "not measured"


def find_sources(mean: np.ndarray) -> np.ndarray:
    """Labels of all sources, (H, W) int, 0 where there is none; they are not deblended: a merger is one source."""
    smooth = ndimage.gaussian_filter(mean, 1.0)
    sky = smooth[np.abs(smooth - np.median(smooth)) < 5 * stats.median_abs_deviation(smooth, axis=None) + 1e-9]
    threshold = np.median(sky) + 2.5 * clipped_standard_deviation(sky)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing was found
        segments = detect_sources(smooth, threshold, 8)
    return np.zeros(mean.shape, int) if segments is None else segments.data


def central_label(segments: np.ndarray) -> int:
    """Label of the source nearest to the centre; 0 where none is near."""
    distance = _distance(segments.shape)
    near = np.where((segments > 0) & (distance <= CENTRE_RADIUS_PX), distance, np.inf)
    return int(segments.flat[near.argmin()]) if np.isfinite(near.min()) else 0


# ----------------------------------------------------------------------------------------------- noise


def autocorrelation(residual: np.ndarray, blank: np.ndarray, lag: int) -> float:
    """Correlation of blank pixels with those `lag` pixels away, along rows and columns."""
    products, squares = [], residual[blank].var()
    for axis in (0, 1):
        size = residual.shape[axis] - lag
        first, second = (np.take(residual, np.arange(size) + shift, axis) for shift in (0, lag))
        both = np.take(blank, np.arange(size), axis) & np.take(blank, np.arange(size) + lag, axis)
        products.append((first * second)[both])
    level = residual[blank].mean()
    return float((np.concatenate(products).mean() - level**2) / squares) if squares > 0 else np.nan


def noise_power(residual: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """Noise power by spatial frequency in the blank corners, over its mean; NaN where no corner is blank."""
    side = POWER_PATCH_PX
    window = np.hanning(side)[:, None] * np.hanning(side)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    bins = np.digitize(frequency, np.linspace(0, 0.5, POWER_BINS + 1)) - 1
    spectra = []
    for rows in (slice(0, side), slice(-side, None)):
        for columns in (slice(0, side), slice(-side, None)):
            patch, free = residual[rows, columns], blank[rows, columns]
            if free.mean() >= LEAST_BLANK and patch[free].std() > 0:
                patch = np.where(free, patch - patch[free].mean(), 0)
                power = np.abs(np.fft.fft2(patch * window)) ** 2
                spectra.append([power[(bins == index) & (frequency > 0)].mean() for index in range(POWER_BINS)])
    mean = np.mean(spectra, axis=0) if spectra else np.full(POWER_BINS, np.nan)
    return mean / mean.mean()


# ----------------------------------------------------------------------------------------------- radio


def radio_features(image: np.ndarray, flux_map: np.ndarray) -> tuple[dict[str, float], np.ndarray, str]:
    """Measure a clipped radio image, and the noise of the map that it was made from, which the clip removes.

    Parameters
    ----------
    image : numpy.ndarray
        (1, H, W) uint8.
    flux_map : numpy.ndarray
        (H, W) Jy/beam, the same part of the sky.

    Returns
    -------
    features : dict of float
    power : numpy.ndarray
        (POWER_BINS,), of the map's noise; see `optical_features`.
    failure : str
        Empty, or that the image is empty.
    """
    features, power = _map_features(flux_map)
    light = image[0].astype(float)
    if not light.any():
        return features, power, "empty image"
    return _kept_features(light) | _extent_features(light) | _shape_features(light) | features, power, ""


def _kept_features(light: np.ndarray) -> dict[str, float]:
    """What the clip kept, and how bright it is."""
    kept = light > 0
    sizes = _island_sizes(kept)
    values = light[kept]
    return {
        "kept_pixels": float(kept.sum()),
        "kept_islands": float(len(sizes)),
        "kept_specks": float((sizes <= SPECK_PX).sum()),
        "kept_p25": float(np.percentile(values, 25)),
        "kept_p50": float(np.percentile(values, 50)),
        "kept_p90": float(np.percentile(values, 90)),
        "kept_above_half_share": float((values > 127).mean()),
        "kept_far_share": float(kept[_distance(light.shape) * RADIO_PIXEL_ARCSEC > 90].sum() / kept.sum()),
    }


def _island_sizes(kept: np.ndarray) -> np.ndarray:
    labels, _ = ndimage.label(kept, np.ones((3, 3)))
    return np.bincount(labels.ravel())[1:]


def _extent_features(light: np.ndarray) -> dict[str, float]:
    """Sizes in arcsec, around the image's centre unless said."""
    distance = _distance(light.shape) * RADIO_PIXEL_ARCSEC
    order = np.argsort(distance, axis=None)
    growth = np.cumsum(light.flat[order]) / light.sum()
    radius = {share: float(distance.flat[order][np.searchsorted(growth, share / 100)]) for share in (20, 50, 80, 90)}
    minor, major = _axes(light)
    return {
        "radius_50_arcsec": radius[50],
        "radius_90_arcsec": radius[90],
        "concentration": 5 * np.log10(max(radius[80], 0.9) / max(radius[20], 0.9)),
        "moment_major_arcsec": major * RADIO_PIXEL_ARCSEC,
        "moment_axis_ratio": minor / major if major > 0 else np.nan,
        "extent_arcsec": _extent(light > SOURCE_LEVEL * light.max()) * RADIO_PIXEL_ARCSEC,
        "extent_kept_arcsec": _extent(_without_specks(light > 0)) * RADIO_PIXEL_ARCSEC,
    }


def _axes(light: np.ndarray) -> tuple[float, float]:
    """Root mean square size along the minor and the major axis of the light, pixels."""
    rows, columns = np.indices(light.shape)
    covariance = np.cov(np.stack([rows.ravel(), columns.ravel()]), aweights=light.ravel(), ddof=0)
    minor, major = np.sqrt(np.maximum(np.linalg.eigvalsh(covariance), 0))
    return float(minor), float(major)


def _without_specks(kept: np.ndarray) -> np.ndarray:
    labels, _ = ndimage.label(kept, np.ones((3, 3)))
    large = np.bincount(labels.ravel()) > SPECK_PX
    large[0] = False
    return large[labels]


def _extent(inside: np.ndarray) -> float:
    """Largest distance between two of the pixels, in pixels."""
    edge = inside & ~ndimage.binary_erosion(inside)
    points = np.argwhere(edge).astype(float)
    if len(points) < 2:
        return 0.0
    return float(np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1)).max())


def _shape_features(light: np.ndarray) -> dict[str, float]:
    """Where the peaks stand, and how the light is spread over the pixels kept."""
    distance = _distance(light.shape) * RADIO_PIXEL_ARCSEC
    peaks = (light == ndimage.maximum_filter(light, 2 * BEAM_PX - 1)) & (light > SOURCE_LEVEL * light.max())
    _, peak_count = ndimage.label(peaks, np.ones((3, 3)))
    _, bright_count = ndimage.label(peaks & (light > 0.5 * light.max()), np.ones((3, 3)))
    return {
        "peaks": float(peak_count),
        "peaks_bright": float(bright_count),
        "peak_offset_arcsec": float(distance.flat[light.argmax()]),
        "centre_level": float(light[distance < 2 * BEAM_PX].max() / 255),
        "centre_light_share": float(light[distance < 9].sum() / light.sum()),
        "asymmetry": float(np.abs(light - light[::-1, ::-1]).sum() / (2 * light.sum())),
        "gini": _gini(light[light > 0]),
        "m20": _m20(light),
    }


def _gini(values: np.ndarray) -> float:
    ranked, count = np.sort(values), len(values)
    if count < 2:
        return np.nan
    return float(((2 * np.arange(1, count + 1) - count - 1) * ranked).sum() / (ranked.mean() * count * (count - 1)))


def _m20(light: np.ndarray) -> float:
    """Second moment of the brightest 20 % of the light over that of all, log10 (Lotz et al. 2004)."""
    rows, columns = np.indices(light.shape)
    centre = [(axis * light).sum() / light.sum() for axis in (rows, columns)]
    moment = light * ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2)
    order = np.argsort(-light, axis=None)
    brightest = order[np.cumsum(light.flat[order]) <= 0.2 * light.sum()]
    part = moment.flat[brightest].sum()
    return float(np.log10(part / moment.sum())) if part > 0 and moment.sum() > 0 else np.nan


def _map_features(flux_map: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    """Noise of a map, away from sources, in units of the eye: microjansky, and sigma."""
    sigma = clipped_standard_deviation(flux_map)
    source = ndimage.gaussian_filter(flux_map, 1.0) > 3 * sigma
    blank = ~ndimage.binary_dilation(source, iterations=2 * BEAM_PX) & (flux_map != 0)
    residual = np.where(blank, flux_map - np.median(flux_map[blank]), 0.0)
    noise = clipped_standard_deviation(flux_map[blank])
    features = {
        "map_noise_ujy": 1e6 * noise,
        "map_noise_lag1": autocorrelation(residual, blank, 1),
        "map_noise_lag2": autocorrelation(residual, blank, 2),
        "map_noise_lag4": autocorrelation(residual, blank, 4),
        "map_noise_kurtosis": float(stats.kurtosis(residual[blank])),
        "map_clip_over_noise": sigma / noise,
        "map_peak_over_noise": float(np.log10(flux_map.max() / noise)),
        "map_deepest_over_noise": float(-flux_map.min() / noise),
        "map_deepest_over_peak": float(-flux_map.min() / flux_map.max()),
    }
    return features, noise_power(residual, blank)


def _distance(shape: tuple[int, int]) -> np.ndarray:
    """Distance of each pixel from the image's centre, pixels."""
    rows, columns = np.indices(shape)
    return np.hypot(rows - (shape[0] - 1) / 2, columns - (shape[1] - 1) / 2)
