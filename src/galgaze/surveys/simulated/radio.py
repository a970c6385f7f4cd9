"""Simulated radio galaxies: FRI and FRII sources as FIRST would see them.

A source is a chain of round Gaussian blobs along two jets. Blobs take the beam by adding variances, and
being separable, hundreds of them are one product of two matrices.
"""

import numpy as np

from galgaze.surveys.simulated.noise import SIGMA_PER_FWHM, correlated_noise, plain, quantised, stream
from galgaze.tasks import RADIO_FR

SKY_VERSION = 1

BEAM_FWHM_ARCSEC = 5.4
NOISE_JY_PER_BEAM = 1.5e-4
STEP_JY_PER_BEAM = 2.0**-20
MEAN_BACKGROUND_SOURCES = 2.5
MAX_LAS_ARCSEC = 240.0
BLOBS_PER_JET = 60

# Largest angular size, log-normal: median and scatter of MiraBest's confident sources; below the least
# size, 5.4 arcsec of beam would leave nothing to tell the classes apart by.
LAS_ARCSEC = {"FRI": (58.0, 0.6, 25.0), "FRII": (34.0, 0.8, 20.0)}  # median, scatter (ln), least


def _chance(seed: int, source_id: str, purpose: str) -> np.random.Generator:
    return stream("first-simulated", SKY_VERSION, seed, source_id, purpose)


def _lognormal_between(rng: np.random.Generator, median: float, scatter: float, low: float, high: float):
    while not low <= (value := median * np.exp(scatter * rng.standard_normal())) <= high:
        pass
    return value


def radio_truth(seed: int, source_id: str) -> dict:
    """Draw the parameters of a radio source.

    Parameters
    ----------
    seed : int
        Of the sky.
    source_id : str
        Any text.

    Returns
    -------
    dict
        The same keys for every class. ``las_arcsec`` is the distance between the two ends, before the beam;
        ``jet_position_angle_deg`` is the jets' axis at the core, east of north, 0 to 180; ``bend_deg`` is
        how far each jet has turned at its end, both to the same side; ``lobe_*_ratio`` the second lobe over
        the first; ``hotspot_fraction`` is of the lobes' light, and None without hotspots.
    """
    rng = _chance(seed, source_id, "truth")
    index = int(rng.integers(len(RADIO_FR.classes)))
    label = RADIO_FR.classes[index]
    edge_brightened = label == "FRII"
    las = _lognormal_between(rng, *LAS_ARCSEC[label], MAX_LAS_ARCSEC)
    if edge_brightened:
        core_fraction, bend = rng.uniform(0.003, 0.04), rng.normal(0, 5)
        hotspot_fraction, length_ratio = rng.uniform(0.4, 0.7), rng.uniform(0.8, 1)
    else:
        core_fraction, bend = rng.uniform(0.12, 0.35), np.clip(rng.normal(0, 30), -80, 80)
        hotspot_fraction, length_ratio = None, rng.uniform(0.75, 1)
    # The least flux grows with the size, or the plumes of a large source would drown in the noise.
    flux = _lognormal_between(rng, max(0.08, 0.002 * las), 0.8, max(0.02, 0.0012 * las), 1.0)
    return plain(
        {
            "class_label": label,
            "class_index": index,
            "las_arcsec": las,
            "jet_position_angle_deg": rng.uniform(0, 180),
            "flux_jy": flux,
            "core_fraction": core_fraction,
            "hotspot_fraction": hotspot_fraction,
            "bend_deg": bend,
            "lobe_length_ratio": length_ratio,
            "lobe_flux_ratio": rng.uniform(0.5, 1),
            # Width of a jet's end over the source's size; FRI plumes flare, FRII lobes are slimmer.
            "lobe_width_ratio": rng.uniform(0.07, 0.13) if edge_brightened else rng.uniform(0.06, 0.15),
        }
    )


def _jets(truth: dict) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (along, across) of each jet's blobs, where the two ends are ``las_arcsec`` apart."""
    step = (np.arange(BLOBS_PER_JET) + 0.5) / BLOBS_PER_JET
    jets = []
    for side, length in ((1, 1.0), (-1, truth["lobe_length_ratio"])):
        direction = np.radians(truth["bend_deg"]) * step  # turns steadily, as in a wind
        jets.append((side * length * np.cumsum(np.cos(direction)), length * np.cumsum(np.sin(direction))))
    (along, across), (along_2, across_2) = jets
    size = truth["las_arcsec"] / np.hypot(along[-1] - along_2[-1], across[-1] - across_2[-1])
    return [(size * along, size * across) for along, across in jets]


def _blobs(truth: dict, rng: np.random.Generator) -> np.ndarray:
    """Return rows of flux_jy, along_arcsec, across_arcsec, sigma_arcsec in the frame of the jets."""
    las, core_flux = truth["las_arcsec"], truth["flux_jy"] * truth["core_fraction"]
    jets_flux = truth["flux_jy"] - core_flux
    shares = np.array([1, truth["lobe_flux_ratio"]]) / (1 + truth["lobe_flux_ratio"])
    step = (np.arange(BLOBS_PER_JET) + 0.5) / BLOBS_PER_JET  # 0 at the core, 1 at the end
    rows = [np.array([[core_flux, 0, 0, 0.3]])]
    for (along, across), share in zip(_jets(truth), shares * jets_flux, strict=True):
        knots = np.exp(rng.normal(0, 0.6, BLOBS_PER_JET))  # no jet is smooth
        if truth["class_label"] == "FRII":
            # Lobes: backflow from the hotspot that fades towards the core.
            light = knots * np.exp(-(1 - step) / 0.3)
            width = las * truth["lobe_width_ratio"] * np.sqrt(step) * (1 - 0.5 * step**4)
            hotspot = share * truth["hotspot_fraction"]
            rows.append(np.array([[hotspot, along[-1], across[-1], 0.8 + 0.005 * las]]))
            share -= hotspot
        else:
            # Plumes: brightest as they leave the core, then fading and widening.
            light = knots * np.exp(-step / 0.35)
            width = 0.5 + las * truth["lobe_width_ratio"] * step**1.2
        flux = share * light / light.sum()
        wiggle = rng.normal(0, 0.15, BLOBS_PER_JET) * width
        rows.append(np.column_stack([flux, along, across + wiggle, width]))
    return np.concatenate(rows)


def _background(rng: np.random.Generator, half_field_arcsec: float) -> np.ndarray:
    """Return rows of flux_jy, east_arcsec, north_arcsec, sigma_arcsec of unrelated point sources."""
    number = rng.poisson(MEAN_BACKGROUND_SOURCES)
    flux = np.minimum(1e-3 * rng.random(number) ** -0.9, 0.05)  # the counts of FIRST, above 1 mJy
    east, north = rng.uniform(-half_field_arcsec, half_field_arcsec, (2, number))
    return np.column_stack([flux, east, north, np.full(number, 0.3)])


def radio_brightness(
    truth: dict, rng: np.random.Generator, size_px: int, pixel_scale_arcsec: float, background: bool = True
) -> np.ndarray:
    """Draw the source without noise, in Jy/beam; ``rng`` makes the knots and the unrelated sources."""
    flux, along, across, width = _blobs(truth, rng).T
    angle = np.radians(truth["jet_position_angle_deg"])
    east = along * np.sin(angle) - across * np.cos(angle)
    north = along * np.cos(angle) + across * np.sin(angle)
    if background:
        others = _background(rng, 270.0)  # the same sky, whatever part of it the image shows
        flux, east, north, width = np.vstack([np.column_stack([flux, east, north, width]), others]).T
    beam_sigma = BEAM_FWHM_ARCSEC * SIGMA_PER_FWHM
    sigma = np.hypot(width, beam_sigma)[:, None]
    offset = (np.arange(size_px) - (size_px - 1) / 2) * pixel_scale_arcsec
    columns = np.exp(-0.5 * ((-offset - east[:, None]) / sigma) ** 2)  # column 0 is east
    rows = np.exp(-0.5 * ((offset - north[:, None]) / sigma) ** 2)
    peak = flux[:, None] * (beam_sigma / sigma) ** 2
    return (peak * rows).T @ columns


def draw_radio(seed: int, source_id: str, size_px: int = 300, pixel_scale_arcsec: float = 1.8) -> np.ndarray:
    """Draw a radio source as FIRST would serve it.

    Parameters
    ----------
    seed : int
        Of the sky.
    source_id : str
        Any text.
    size_px, pixel_scale_arcsec : int, float
        Of the square image.

    Returns
    -------
    numpy.ndarray
        (H, W) float32 in Jy/beam; row 0 is south, column 0 is east.
    """
    image = radio_brightness(
        radio_truth(seed, source_id), _chance(seed, source_id, "scene"), size_px, pixel_scale_arcsec
    )
    noise_rng = _chance(seed, source_id, "noise")
    noise = correlated_noise(noise_rng, image.shape, BEAM_FWHM_ARCSEC / pixel_scale_arcsec)
    return quantised(image + NOISE_JY_PER_BEAM * noise, STEP_JY_PER_BEAM)
