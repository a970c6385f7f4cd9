"""What a simulated radio source is: the parameters drawn for it.

Sizes, fluxes and redshifts follow MiraBest (Porter & Scaife 2023; labels after Miraghaei & Best 2017). All numbers
below were measured on 538 of its sources, the half that `galgaze.models.training.split_by_position` with a fraction of
0.5 and seed 0 does not choose; the other half was kept to report on. Sizes and redshifts are those of its table, fluxes
the sum of the pixels above 3 sigma within 0.6 LAS.
"""

import numpy as np

from galgaze.surveys.simulated.cosmology import kpc_per_arcsec
from galgaze.surveys.simulated.mix import draw_from_mix
from galgaze.surveys.simulated.noise import plain, stream
from galgaze.tasks import RADIO_FR, RADIO_MORPHOLOGIES

SKY_VERSION = 2

NOISE_JY_PER_BEAM = 1.5e-4  # median; MiraBest's maps: 0.157 mJy/beam with sidelobes, scatter 0.13 (ln)
NOISE_SCATTER = 0.12
STAR_STEPS = 12  # orientations of the six-armed beam; few, so that their filters can be kept

# Shares. Counts in MiraBest's half: 234 FRI (0.43), 22 wide-angle and 4 head-tails, 262 FRII (0.49), 2 double-doubles,
# 14 hybrids. The rare ones are raised here, so that a training set holds some of each; compact sources are not
# in MiraBest, but are most of FIRST.
DEFAULT_MIX = {
    "fri": 0.33,
    "wide_angle_tail": 0.07,
    "narrow_angle_tail": 0.04,
    "frii": 0.42,
    "double_double": 0.03,
    "hybrid": 0.05,
    "compact": 0.06,
}

# Log-normal: median, scatter (ln), least, largest. Measured median and scatter, from confident sources where there are
# enough (164 FRI, 20 wide-angle tails, 4 head-tails, 186 FRII; 14 hybrids):
#               LAS (arcsec)  flux (Jy)     redshift
#   FRI         58, 0.64      0.050, 0.87   0.158, 0.57
#   wide-angle  50, 0.57      0.057, 1.2    0.181, 0.48
#   head-tails  32, 0.25      0.038, 1.2    0.136, 0.28
#   FRII        27, 0.89      0.068, 0.95   0.226, 0.50
#   hybrids     34, 0.48      0.053, 1.5    0.268, 0.52
# Scatters of LAS are a little larger here, as the limits cut both ends; head-tails are drawn more like the other tails,
# four being too few. Double-doubles must be large for an inner pair to show in a beam of 5.4 arcsec (MiraBest's half
# has two), and for compact sources the numbers are round ones.
LAS_ARCSEC = {
    "fri": (56.0, 0.66, 19.0, 270.0),
    "wide_angle_tail": (52.0, 0.55, 22.0, 200.0),
    "narrow_angle_tail": (42.0, 0.50, 20.0, 200.0),
    "frii": (27.0, 0.95, 7.5, 270.0),
    "double_double": (90.0, 0.50, 45.0, 260.0),
    "hybrid": (36.0, 0.50, 18.0, 150.0),
    "compact": (1.0, 0.60, 0.1, 2.5),
}
FLUX_JY = {
    "fri": (0.052, 0.87, 0.010, 3.0),
    "wide_angle_tail": (0.062, 1.00, 0.012, 3.0),
    "narrow_angle_tail": (0.062, 1.00, 0.012, 3.0),
    "frii": (0.069, 0.95, 0.020, 3.0),
    "double_double": (0.100, 0.80, 0.030, 3.0),
    "hybrid": (0.055, 0.90, 0.020, 3.0),
    "compact": (0.050, 0.95, 0.010, 3.0),
}
# A large faint source would be below the noise, and in nobody's catalogue: MiraBest's have at least this.
LEAST_FLUX_JY_PER_LAS_ARCSEC = 2e-4
REDSHIFT = {
    "fri": (0.158, 0.57, 0.03, 0.6),
    "wide_angle_tail": (0.175, 0.45, 0.03, 0.6),
    "narrow_angle_tail": (0.140, 0.40, 0.03, 0.6),
    "frii": (0.226, 0.50, 0.04, 0.6),
    "double_double": (0.226, 0.50, 0.04, 0.6),
    "hybrid": (0.268, 0.50, 0.05, 0.6),
    "compact": (0.226, 0.50, 0.03, 0.6),
}
REDSHIFT_LAS_CORRELATION = -0.3  # of the logarithms: the farther, the smaller

# What a truth that was edited by hand may hold. None where a morphology has no such thing.
RANGES = {
    "las_arcsec": (0.05, 2000.0),
    "jet_position_angle_deg": (0.0, 360.0),
    "flux_jy": (0.0, 1000.0),
    "core_fraction": (0.0, 1.0),
    "hotspot_fraction": (0.0, 1.0),
    "bend_deg": (-90.0, 90.0),
    "bend_scale": (0.02, 10.0),
    "twist_deg": (-90.0, 90.0),
    "meander_deg": (0.0, 90.0),
    "lobe_length_ratio": (0.05, 1.0),
    "lobe_flux_ratio": (0.0, 20.0),
    "lobe_width_ratio": (0.001, 0.5),
    "clumpiness": (0.0, 3.0),
    "flare_position": (0.005, 0.9),
    "gap_depth": (0.0, 1.0),
    "fade_length": (0.02, 10.0),
    "knot_fraction": (0.0, 1.0),
    "plume_fraction": (0.0, 1.0),
    "plume_slope": (0.0, 10.0),
    "widening_slope": (0.0, 5.0),
    "lobe_extent": (0.05, 1.0),
    "lobe_wing_ratio": (-0.5, 0.5),
    "jet_fraction": (0.0, 1.0),
    "inner_size_ratio": (0.05, 0.9),
    "inner_flux_fraction": (0.0, 1.0),
    "host_offset_east_arcsec": (-30.0, 30.0),
    "host_offset_north_arcsec": (-30.0, 30.0),
    "noise_jy_per_beam": (0.0, 1.0),
    "sidelobe_fraction": (0.0, 1.0),
    "beam_star_deg": (0.0, 60.0),
}

# Which half of a source (its first and second jet) is drawn as what.
SIDES = {
    "fri": ("plume", "plume"),
    "wide_angle_tail": ("plume", "plume"),
    "narrow_angle_tail": ("plume", "plume"),
    "frii": ("lobe", "lobe"),
    "double_double": ("lobe", "lobe"),
    "hybrid": ("plume", "lobe"),
    "compact": (),
}


def radio_truth(seed: int, source_id: str, mix: dict[str, float] | None = None) -> dict:
    """Draw the parameters of a radio source.

    Parameters
    ----------
    seed : int
        Of the sky.
    source_id : str
        Any text.
    mix : dict, optional
        Relative share of each morphology of `galgaze.tasks.RADIO_MORPHOLOGIES`; the others do not occur. None:
        `DEFAULT_MIX`.

    Returns
    -------
    dict
        The same keys for every morphology, None where it has no such thing:

        - ``class_label``, ``class_index``: of `galgaze.tasks.RADIO_FR`; None for hybrid and compact.
        - ``morphology``, ``redshift``.
        - ``las_arcsec``, ``las_kpc``: largest distance between two points of the spine (both jets), before the beam.
        - ``jet_position_angle_deg``: of the first jet at the core, east of north, 0 to 360.
        - ``flux_jy``, and what it is made of: ``core_flux_jy``, ``lobe_1_flux_jy``, ``lobe_2_flux_jy`` (all of each
          side, hotspots included), ``hotspot_1_flux_jy``, ``hotspot_2_flux_jy``, ``inner_lobes_flux_jy``.
        - ``core_fraction`` of the flux, ``hotspot_fraction`` and ``jet_fraction`` of a lobe's, ``inner_flux_fraction``
          of what is not core, ``lobe_flux_ratio`` and ``lobe_length_ratio`` the second side's over the first's.
        - ``bend_deg``: how far each jet has turned at its end, both to the same side; ``bend_scale``: within which part
          of its length; ``opening_angle_deg``: between the jets' directions at their ends, 180 where straight.
        - ``twist_deg``: how far both have turned in the same sense, as an S; ``meander_deg``: random turns beyond that.
        - ``lobe_width_ratio``: sigma of a jet's end or a lobe over the LAS; ``clumpiness``: scatter (ln) of brightness.
        - plumes: ``flare_position`` (of a jet's length) where it is brightest, ``gap_depth`` of the darkness before,
          ``fade_length`` of a jet's length, ``knot_fraction`` of the light in one knot at the flare, ``plume_fraction``
          of the rest in the wide, faint plume,
          ``plume_slope``: its light per length goes as this power of the distance from the core,
          ``widening_slope``: and its width so.
        - lobes: ``lobe_extent`` (of a jet's length, from the end), ``lobe_wing_ratio``: sideways flow over the LAS.
        - double-doubles: ``inner_size_ratio`` of the inner pair over the outer one.
        - ``host_offset_*_arcsec``: core relative to the image's centre.
        - ``noise_jy_per_beam``, ``sidelobe_fraction``, ``beam_star_deg``: of the map.

    Raises
    ------
    ValueError
        If the mix names an unknown morphology, or holds a share that is none.
    """
    rng = stream("first-simulated", SKY_VERSION, seed, source_id, "truth")
    morphology = draw_from_mix(rng, DEFAULT_MIX if mix is None else mix, tuple(RADIO_MORPHOLOGIES))
    las, redshift = _las_and_redshift(rng, morphology)
    median, scatter, least, largest = FLUX_JY[morphology]
    flux = _lognormal(rng, median, scatter, max(least, LEAST_FLUX_JY_PER_LAS_ARCSEC * las), largest)
    truth = dict.fromkeys(RANGES)
    truth |= {"las_arcsec": las, "flux_jy": flux, "jet_position_angle_deg": rng.uniform(0, 360)}
    truth |= _map_parameters(rng)
    truth |= _DRAW[morphology](rng, las)
    label = RADIO_MORPHOLOGIES[morphology]
    bend = truth["bend_deg"]
    head = {
        "class_label": label,
        "class_index": None if label is None else RADIO_FR.classes.index(label),
        "morphology": morphology,
        "redshift": redshift,
        "las_kpc": las * float(kpc_per_arcsec(redshift)),
        "opening_angle_deg": None if bend is None else 180 - 2 * abs(bend),
    }
    return plain({**head, **truth, **component_fluxes(truth, morphology)})


def component_fluxes(truth: dict, morphology: str) -> dict[str, float | None]:
    """Fluxes of core, sides, hotspots and inner lobes in Jy, from the flux and the fractions of a truth."""
    core = truth["flux_jy"] * truth["core_fraction"]
    fluxes: dict[str, float | None] = {"core_flux_jy": core}
    names = "lobe_1_flux_jy", "lobe_2_flux_jy", "hotspot_1_flux_jy", "hotspot_2_flux_jy", "inner_lobes_flux_jy"
    fluxes |= dict.fromkeys(names)
    if not SIDES[morphology]:
        return fluxes
    outer = truth["flux_jy"] - core
    if truth["inner_flux_fraction"] is not None:
        fluxes["inner_lobes_flux_jy"] = outer * truth["inner_flux_fraction"]
        outer -= fluxes["inner_lobes_flux_jy"]
    first = outer / (1 + truth["lobe_flux_ratio"])
    for number, (side, flux) in enumerate(zip(SIDES[morphology], (first, outer - first), strict=True), start=1):
        fluxes[f"lobe_{number}_flux_jy"] = flux
        if side == "lobe":
            fluxes[f"hotspot_{number}_flux_jy"] = flux * truth["hotspot_fraction"]
    return fluxes


def check_truth(truth: dict) -> None:
    """Refuse a truth that cannot be drawn.

    Raises
    ------
    ValueError
        If the morphology is unknown, or a parameter is missing, no number or out of its range.
    """
    morphology = truth.get("morphology")
    if morphology not in RADIO_MORPHOLOGIES:
        raise ValueError(f"morphology: {morphology!r} is not known; known are: {', '.join(RADIO_MORPHOLOGIES)}")
    needed = _REQUIRED | set().union(*(_REQUIRED_BY_SIDE[side] for side in SIDES[morphology]))
    if morphology == "double_double":
        needed |= {"inner_size_ratio", "inner_flux_fraction"}
    for key, (low, high) in RANGES.items():
        value = truth.get(key)
        if value is None and key not in needed:
            continue
        # written so that NaN is refused as well
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"{key}: {value!r} of a {morphology} source is not a number from {low:g} to {high:g}")


_REQUIRED = {
    *("las_arcsec", "jet_position_angle_deg", "flux_jy", "core_fraction", "noise_jy_per_beam"),
    *("host_offset_east_arcsec", "host_offset_north_arcsec", "sidelobe_fraction", "beam_star_deg"),
}
_REQUIRED_OF_JETS = {
    *("bend_deg", "bend_scale", "twist_deg", "meander_deg", "clumpiness"),
    *("lobe_length_ratio", "lobe_flux_ratio", "lobe_width_ratio"),
}
_REQUIRED_BY_SIDE = {
    "plume": _REQUIRED_OF_JETS
    | {
        "flare_position",
        "gap_depth",
        "fade_length",
        "knot_fraction",
        "plume_fraction",
        "plume_slope",
        "widening_slope",
    },
    "lobe": _REQUIRED_OF_JETS | {"hotspot_fraction", "lobe_extent", "lobe_wing_ratio", "jet_fraction"},
}


def _lognormal(rng: np.random.Generator, median: float, scatter: float, low: float, high: float) -> float:
    """Log-normal; what falls outside is drawn again."""
    while not low <= (value := median * np.exp(scatter * rng.standard_normal())) <= high:
        pass
    return float(value)


def _las_and_redshift(rng: np.random.Generator, morphology: str) -> tuple[float, float]:
    """Largest angular size in arcsec and redshift, log-normal and correlated."""
    rho = REDSHIFT_LAS_CORRELATION
    while True:
        first, second = rng.standard_normal(2)
        values = []
        limits = LAS_ARCSEC[morphology], REDSHIFT[morphology]
        for (median, scatter, low, high), unit in zip(
            limits, (first, rho * first + np.sqrt(1 - rho**2) * second), strict=True
        ):
            value = median * np.exp(scatter * unit)
            if low <= value <= high:
                values.append(float(value))
        if len(values) == 2:
            return values[0], values[1]


def _map_parameters(rng: np.random.Generator) -> dict:
    """What belongs to the observation rather than to the source."""
    east, north = rng.normal(0, 0.6, 2)  # the host's position is good to that; FIRST is not resampled either
    return {
        "host_offset_east_arcsec": east,
        "host_offset_north_arcsec": north,
        "noise_jy_per_beam": NOISE_JY_PER_BEAM * np.exp(NOISE_SCATTER * rng.standard_normal()),
        "sidelobe_fraction": _lognormal(rng, 0.03, 0.5, 0.005, 0.15),
        "beam_star_deg": 60 / STAR_STEPS * float(rng.integers(STAR_STEPS)),
    }


# What follows was set by eye and by summary statistics, beside sheets of real images: MiraBest gives no such numbers.


def _plumes(rng: np.random.Generator, las_arcsec: float) -> dict:
    """Both sides of an FRI: brightest near the core, then fading and widening."""
    return {
        "core_fraction": _lognormal(rng, 0.035, 1.3, 0.001, 0.5),
        "bend_deg": np.clip(rng.normal(0, 24), -85, 85),
        "bend_scale": rng.uniform(0.2, 3),
        "twist_deg": np.clip(rng.normal(0, 20), -80, 80),
        "meander_deg": rng.uniform(2, 25),
        "lobe_length_ratio": np.clip(np.exp(-abs(rng.normal(0, 0.5))), 0.2, 1),
        "lobe_flux_ratio": _lognormal(rng, 0.9, 0.7, 0.08, 8),
        "lobe_width_ratio": _lognormal(rng, 0.11, 0.5, 0.02, 0.3),
        "clumpiness": rng.uniform(0.3, 1.2),
        # 6 arcsec are 17 kpc at the median redshift; it grows more slowly than the source.
        "flare_position": np.clip(_lognormal(rng, 0.24, 0.6, 0.03, 1.5) * (50 / las_arcsec) ** 0.6, 0.03, 0.5),
        "gap_depth": rng.uniform(0.5, 1),
        "fade_length": rng.uniform(0.06, 0.4),
        "knot_fraction": 0.35 * rng.random() ** 2,
        "plume_fraction": rng.uniform(0.2, 0.93),
        "plume_slope": rng.uniform(0, 3),
        # Below 0.3 the two plumes make one body, without much of a waist.
        "widening_slope": rng.uniform(0.1, 1.3),
    }


def _wide_angle_tail(rng: np.random.Generator, las_arcsec: float) -> dict:
    """Jets to a flare point, and plumes that bend behind it."""
    return _plumes(rng, las_arcsec) | {
        "bend_deg": rng.choice([-1, 1]) * rng.uniform(35, 78),
        "bend_scale": rng.uniform(0.15, 0.7),
        "twist_deg": np.clip(rng.normal(0, 8), -25, 25),
        "meander_deg": rng.uniform(1, 15),
        "lobe_length_ratio": rng.uniform(0.5, 1),
        "flare_position": rng.uniform(0.12, 0.43),
        "knot_fraction": rng.uniform(0, 0.5),
        "plume_fraction": rng.uniform(0.1, 0.85),
    }


def _narrow_angle_tail(rng: np.random.Generator, las_arcsec: float) -> dict:
    """A bright head, both jets swept back at once."""
    return _plumes(rng, las_arcsec) | {
        "core_fraction": _lognormal(rng, 0.12, 0.6, 0.02, 0.5),
        "bend_deg": rng.choice([-1, 1]) * rng.uniform(68, 88),
        "bend_scale": rng.uniform(0.04, 0.15),
        "twist_deg": np.clip(rng.normal(0, 4), -12, 12),
        "meander_deg": rng.uniform(1, 12),
        "lobe_length_ratio": rng.uniform(0.7, 1),
        "flare_position": rng.uniform(0.03, 0.3),
    }


def _lobes(rng: np.random.Generator, las_arcsec: float) -> dict:
    """Both sides of an FRII: hotspots at the ends, and lobes that flow back from them."""
    # Where the jets have ended, hotspots fade and lobes spread: MiraBest's FRII hold such ones, too.
    relaxed = rng.random() < 0.15
    return {
        "core_fraction": _lognormal(rng, 0.03 if relaxed else 0.02, 1.1, 0.0005, 0.25),
        "hotspot_fraction": 0.08 * rng.random() if relaxed else 0.02 + 0.6 * rng.random() ** 1.3,
        "bend_deg": np.clip(rng.normal(0, 10), -40, 40),
        "bend_scale": 3.0,
        "twist_deg": np.clip(rng.normal(0, 6), -25, 25),
        "meander_deg": rng.uniform(0, 5),
        "lobe_length_ratio": np.clip(np.exp(-abs(rng.normal(0, 0.25))), 0.4, 1),
        "lobe_flux_ratio": _lognormal(rng, 1.0, 0.55, 0.12, 8),
        # The larger, the slimmer.
        "lobe_width_ratio": _lognormal(rng, 0.12 if relaxed else 0.075, 0.4, 0.02, 0.22)
        * (50 / max(las_arcsec, 15)) ** 0.25,
        "clumpiness": rng.uniform(0.1, 0.8),
        "lobe_extent": rng.uniform(0.35, 1),
        "lobe_wing_ratio": rng.normal(0, 0.05),
        "jet_fraction": rng.uniform(0, 0.1),
    }


def _double_double(rng: np.random.Generator, las_arcsec: float) -> dict:
    """An older, relaxed pair of lobes and a younger pair inside."""
    return _lobes(rng, las_arcsec) | {
        "bend_deg": np.clip(rng.normal(0, 3), -10, 10),
        "hotspot_fraction": rng.uniform(0.3, 0.7),
        "lobe_extent": rng.uniform(0.2, 0.5),
        "lobe_flux_ratio": _lognormal(rng, 1.0, 0.3, 0.4, 2.5),
        "lobe_length_ratio": rng.uniform(0.8, 1),
        "inner_size_ratio": rng.uniform(0.25, 0.5),
        "inner_flux_fraction": rng.uniform(0.2, 0.5),
    }


def _hybrid(rng: np.random.Generator, las_arcsec: float) -> dict:
    """An FRI to one side and an FRII to the other."""
    return _lobes(rng, las_arcsec) | {
        **{
            key: value
            for key, value in _plumes(rng, las_arcsec).items()
            if key not in ("lobe_width_ratio", "clumpiness")
        },
        "bend_deg": np.clip(rng.normal(0, 15), -45, 45),
        "twist_deg": np.clip(rng.normal(0, 8), -30, 30),
        "hotspot_fraction": rng.uniform(0.4, 0.9),
        "lobe_flux_ratio": _lognormal(rng, 1.0, 0.3, 0.5, 2.0),
        "lobe_length_ratio": rng.uniform(0.7, 1),
        "lobe_extent": rng.uniform(0.2, 0.6),
        "flare_position": 0.03 + 0.25 * rng.random(),
    }


def _compact(rng: np.random.Generator, las_arcsec: float) -> dict:
    """Smaller than the beam: all core."""
    return {"core_fraction": 1.0}


_DRAW = {
    "fri": _plumes,
    "wide_angle_tail": _wide_angle_tail,
    "narrow_angle_tail": _narrow_angle_tail,
    "frii": _lobes,
    "double_double": _double_double,
    "hybrid": _hybrid,
    "compact": _compact,
}
