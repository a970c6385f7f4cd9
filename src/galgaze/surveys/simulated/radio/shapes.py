"""What a simulated radio source looks like: chains of round Gaussian blobs along two jets.

Blobs take the beam by adding variances, and being separable, hundreds of them are one product of two matrices.
"""

import numpy as np

from galgaze.surveys.simulated.noise import SIGMA_PER_FWHM
from galgaze.surveys.simulated.radio.truth import SIDES, component_fluxes

BEAM_FWHM_ARCSEC = 5.4
BLOBS_PER_JET = 60
POINT_SIGMA_ARCSEC = 0.3  # of cores: far below the beam
KNOTS_PER_JET = 8
LOBE_SIGMA_ARCSEC = 1.4  # even MiraBest's smallest doubles are wider than the beam
_STEP = (np.arange(BLOBS_PER_JET) + 0.5) / BLOBS_PER_JET  # place along a jet: 0 at the core, 1 at the end


def source_blobs(truth: dict, rng: np.random.Generator) -> np.ndarray:
    """Return the source's blobs on the sky.

    Parameters
    ----------
    truth : dict
        As of `radio_truth`, checked.
    rng : numpy.random.Generator
        Makes knots and meanders.

    Returns
    -------
    numpy.ndarray
        (N, 4): flux in Jy, offsets to the east and to the north of the image's centre and sigma, in arcsec.
    """
    fluxes = component_fluxes(truth, truth["morphology"])
    las = truth["las_arcsec"]
    if not SIDES[truth["morphology"]]:
        # A round source of this full width at half maximum.
        return _on_the_sky(np.array([[truth["flux_jy"], 0.0, 0.0, las * SIGMA_PER_FWHM]]), truth)
    rows = [np.array([[fluxes["core_flux_jy"], 0.0, 0.0, POINT_SIGMA_ARCSEC]])]
    jets = spines(truth, rng)
    for number, (side, jet) in enumerate(zip(SIDES[truth["morphology"]], jets, strict=True), start=1):
        flux = fluxes[f"lobe_{number}_flux_jy"]
        if side == "plume":
            rows.append(_plume(truth, jet, flux, rng))
        else:
            rows.append(_lobe(truth, jet, flux, fluxes[f"hotspot_{number}_flux_jy"], rng))
    if fluxes["inner_lobes_flux_jy"]:
        rows.append(_inner_pair(truth, jets, fluxes["inner_lobes_flux_jy"], rng))
    return _on_the_sky(np.concatenate(rows), truth)


def spines(truth: dict, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the two jets' middle lines: each (4, BLOBS_PER_JET), along, across in arcsec and the unit normal.

    ``along`` is positive in the first jet's direction. The largest distance between any two points is the LAS.
    """
    bend, twist, scale = np.radians(truth["bend_deg"]), np.radians(truth["twist_deg"]), truth["bend_scale"]
    turned = (1 - np.exp(-_STEP / scale)) / (1 - np.exp(-1 / scale))
    jets = []
    for side, length in ((1, 1.0), (-1, truth["lobe_length_ratio"])):
        direction = bend * turned + side * twist * _STEP + _meander(truth, rng)
        along, across = side * np.cos(direction), np.sin(direction)
        step = length / BLOBS_PER_JET
        jets.append(np.array([step * np.cumsum(along), step * np.cumsum(across), -across, along]))
    points = np.concatenate([jet[:2].T for jet in jets] + [np.zeros((1, 2))])
    extent = np.linalg.norm(points[:, None] - points[None], axis=2).max()
    for jet in jets:
        jet[:2] *= truth["las_arcsec"] / extent
    return jets


def _meander(truth: dict, rng: np.random.Generator) -> np.ndarray:
    """Turns in radians along a jet, none at the core: two waves of random height and phase."""
    height = np.radians(truth["meander_deg"]) * rng.standard_normal(2)
    phase = rng.uniform(0, 2 * np.pi, 2)
    waves = [np.sin(k * np.pi * _STEP + phase[k - 1]) - np.sin(phase[k - 1]) for k in (1, 2)]
    return height @ np.array(waves)


def _knots(truth: dict, rng: np.random.Generator) -> np.ndarray:
    """Factors of brightness along a jet: no jet is smooth."""
    coarse = np.interp(_STEP, np.linspace(0, 1, KNOTS_PER_JET), rng.standard_normal(KNOTS_PER_JET))
    return np.exp(truth["clumpiness"] * (coarse + 0.5 * rng.standard_normal(BLOBS_PER_JET)))


def _shared_out(flux: float, light: np.ndarray) -> np.ndarray:
    return flux * light / light.sum()


def _scattered(jet: np.ndarray, width: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Blobs beside the spine and narrower by as much, so that the whole is as wide as told but not round."""
    offset = 0.7 * width * rng.standard_normal(BLOBS_PER_JET)
    return jet[0] + offset * jet[2], jet[1] + offset * jet[3], 0.7 * width


def _plume(truth: dict, jet: np.ndarray, flux: float, rng: np.random.Generator) -> np.ndarray:
    """An FRI's side, rows of flux, along, across, sigma."""
    las, flare = truth["las_arcsec"], truth["flare_position"]
    rise = 1 - truth["gap_depth"] * np.exp(-((_STEP / flare) ** 2))
    fade = np.exp(-np.maximum(_STEP - flare, 0) / truth["fade_length"])
    jet_light = _shared_out(1 - truth["plume_fraction"], rise * fade * _knots(truth, rng))
    # The plume goes on to the end; its width leaves little of it on a pixel.
    plume_light = _shared_out(
        truth["plume_fraction"],
        np.clip(_STEP / flare - 0.5, 0.02, 1) * _STEP ** truth["plume_slope"] * _knots(truth, rng),
    )
    width = las * truth["lobe_width_ratio"] * np.maximum(_STEP - 0.5 * flare, 0.02) ** truth["widening_slope"]
    knot = truth["knot_fraction"] * flux
    flux -= knot
    place = min(int(flare * BLOBS_PER_JET), BLOBS_PER_JET - 1)
    bright = np.array([[knot, jet[0, place], jet[1, place], 0.7 + 0.3 * width[place]]])
    inner = np.column_stack([flux * jet_light, *_scattered(jet, 0.7 + 0.5 * width, rng)])
    outer = np.column_stack([flux * plume_light, *_scattered(jet, 1.2 + 1.3 * width, rng)])
    return np.concatenate([bright, inner, outer])


def _lobe(truth: dict, jet: np.ndarray, flux: float, hotspot: float, rng: np.random.Generator) -> np.ndarray:
    """An FRII's side: hotspot, lobe and a faint jet; rows of flux, along, across, sigma."""
    wide = truth["las_arcsec"] * truth["lobe_width_ratio"]
    # 0 at the end, 1 where the flow back from the hotspot comes to rest
    back = (1 - _STEP) / truth["lobe_extent"]
    light = np.where(back < 1, np.exp(-1.7 * back), 0) * _knots(truth, rng)
    along, across, sigma = _scattered(jet, LOBE_SIGMA_ARCSEC + wide * np.minimum(0.5 + 1.5 * back, 1), rng)
    wing = truth["las_arcsec"] * truth["lobe_wing_ratio"] * np.minimum(back, 1.2) ** 1.5
    jet_flux = truth["jet_fraction"] * (flux - hotspot)
    lobe_light = _shared_out(flux - hotspot - jet_flux, light)
    lobe = np.column_stack([lobe_light, along + wing * jet[2], across + wing * jet[3], sigma])
    thin = np.column_stack([_shared_out(jet_flux, _knots(truth, rng)), jet[0], jet[1], np.full(BLOBS_PER_JET, 0.4)])
    spot_sigma = 0.8 * LOBE_SIGMA_ARCSEC + wide * rng.uniform(0.05, 0.35)
    spot = np.array([[hotspot, jet[0, -1], jet[1, -1], spot_sigma]])
    return np.concatenate([spot, lobe[light > 0], thin])


def _inner_pair(truth: dict, jets: list[np.ndarray], flux: float, rng: np.random.Generator) -> np.ndarray:
    """The younger lobes of a double-double: a hotspot and a short trail on either side."""
    place = truth["inner_size_ratio"]
    light = np.where(place >= _STEP, np.exp(-(place - _STEP) / (0.15 * place)), 0)
    first = rng.uniform(0.35, 0.65)
    rows = []
    for jet, share in zip(jets, (first, 1 - first), strict=True):
        blobs = np.column_stack([_shared_out(share * flux, light), jet[0], jet[1], np.full(BLOBS_PER_JET, 0.6)])
        rows.append(blobs[light > 0])
    return np.concatenate(rows)


def _on_the_sky(blobs: np.ndarray, truth: dict) -> np.ndarray:
    """From the jets' frame to east and north of the image's centre."""
    flux, along, across, sigma = blobs.T
    angle = np.radians(truth["jet_position_angle_deg"])
    east = along * np.sin(angle) - across * np.cos(angle) + truth["host_offset_east_arcsec"]
    north = along * np.cos(angle) + across * np.sin(angle) + truth["host_offset_north_arcsec"]
    return np.column_stack([flux, east, north, sigma])


def draw_blobs(blobs: np.ndarray, size_px: int, pixel_scale_arcsec: float) -> np.ndarray:
    """Return the blobs as the beam shows them, (H, W) in Jy/beam; row 0 is south, column 0 is east."""
    beam_sigma = BEAM_FWHM_ARCSEC * SIGMA_PER_FWHM
    sigma = np.hypot(blobs[:, 3], beam_sigma)
    half = size_px / 2 * pixel_scale_arcsec
    seen = (np.abs(blobs[:, 1:3]).max(axis=1) < half + 6 * sigma) & (blobs[:, 0] > 0)
    flux, east, north, _ = blobs[seen].T
    sigma = sigma[seen, None]
    offset = (np.arange(size_px) - (size_px - 1) / 2) * pixel_scale_arcsec
    columns = np.exp(-0.5 * ((-offset - east[:, None]) / sigma) ** 2)  # column 0 is east
    rows = np.exp(-0.5 * ((offset - north[:, None]) / sigma) ** 2)
    peak = flux[:, None] * (beam_sigma / sigma) ** 2
    return (peak * rows).T @ columns
