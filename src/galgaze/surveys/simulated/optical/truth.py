"""What a simulated galaxy is: every parameter, drawn from its source's own stream of chance."""

import numpy as np

from galgaze.surveys.simulated.cosmology import kpc_per_arcsec
from galgaze.surveys.simulated.mix import draw_from_mix
from galgaze.surveys.simulated.noise import plain, stream
from galgaze.surveys.simulated.optical.classes import DRAW_CLASS
from galgaze.tasks import OPTICAL_MORPHOLOGY

SKY_VERSION = 2

BANDS = "grz"
ARTEFACTS = ("none", "bleed_trail", "satellite_trail", "missing_band", "partial_coverage")

# Median seeing of DECaLS (FWHM; Dey et al. 2019, AJ 157, 168), and noise of a native pixel, measured on blank
# parts of a few cutouts that the viewer served: 0.0027 to 0.0043, 0.0035 to 0.009, 0.009 to 0.015 in g, r, z.
PSF_FWHM_ARCSEC = np.array([1.29, 1.18, 1.11])
PSF_SCATTER = 0.09  # ln, all bands together; half as much for each alone
NOISE_NANOMAGGY = np.array([0.0030, 0.0050, 0.011])
NOISE_SCATTER = 0.35  # ln; the number of exposures differs from place to place, 1 to 10

# Component: its share of the light in r, and its colour. What no share claims is the body's: the disc, or
# the whole of an elliptical.
LIGHT = {
    "bulge": ("bulge_fraction", "bulge_g_minus_r_mag"),
    "bar": ("bar_fraction", "bar_g_minus_r_mag"),
    "ring": ("ring_fraction", "arm_g_minus_r_mag"),
    "arms": ("arm_fraction", "arm_g_minus_r_mag"),
    "clumps": ("clump_fraction", "clump_g_minus_r_mag"),
    "tidal": ("tidal_fraction", "tidal_g_minus_r_mag"),
    "companion": ("companion_fraction", "companion_g_minus_r_mag"),
}

LARGEST_CLAIM = 0.8  # of the light by all components together; the body needs the rest

TRUTH_KEYS = (
    "class_label",
    "class_index",
    "redshift",
    "absolute_r_mag",
    "r_mag",
    *(f"flux_{band}_nanomaggy" for band in BANDS),
    "body_flux_r_nanomaggy",
    *(f"{name}_flux_r_nanomaggy" for name in LIGHT),
    "circular_half_light_radius_arcsec",
    "half_light_radius_arcsec",
    "half_light_radius_kpc",
    "axis_ratio",
    "position_angle_deg",
    "inclination_deg",
    "sersic_index",
    "bulge_half_light_radius_arcsec",
    "bulge_sersic_index",
    "bulge_axis_ratio",
    "pitch_angle_deg",
    "n_arms",
    "arm_winding",
    "arm_start_arcsec",
    "arm_end_arcsec",
    "arm_contrast",
    "flocculence",
    "ring_radius_arcsec",
    "ring_width_arcsec",
    "bar_strength",
    "bar_length_arcsec",
    "bar_length_kpc",
    "bar_position_angle_deg",
    "bar_axis_ratio",
    "bar_face_on_length_arcsec",
    "bar_face_on_axis_ratio",
    "bar_angle_in_disc_deg",
    "dust_optical_depth_r",
    "colour_gradient",
    "disturbance",
    "lopsidedness",
    "lopsided_towards_deg",
    "companion_separation_arcsec",
    "companion_position_angle_deg",
    *(share for share, _ in LIGHT.values()),
    *dict.fromkeys(["body_g_minus_r_mag", *(colour for _, colour in LIGHT.values())]),
    "r_minus_z_offset_mag",
    *(f"psf_fwhm_{band}_arcsec" for band in BANDS),
    *(f"noise_{band}_nanomaggy" for band in BANDS),
    "artefact",
)


def chance(seed: int, source_id: str, purpose: str) -> np.random.Generator:
    """Return the generator of one purpose of one source."""
    return stream("legacy-simulated", SKY_VERSION, seed, source_id, purpose)


def optical_truth(
    seed: int, source_id: str, mix: dict[str, float] | None = None, artefact_fraction: float = 0.03
) -> dict:
    """Draw the parameters of a galaxy.

    Parameters
    ----------
    seed : int
        Of the sky.
    source_id : str
        Any text.
    mix : dict, optional
        Relative share of each class, by its name; None: all ten alike.
    artefact_fraction : float
        Share of images with an artefact, 0 to 1.

    Returns
    -------
    dict
        The same keys for every class, None where there is no such thing. Angles on the sky are east of north,
        0 to 180. ``half_light_radius_arcsec`` is along the major axis, of the disc where there is one;
        ``circular_half_light_radius_arcsec`` is that of the population's law. Fractions are of the light in r,
        before dust. ``axis_ratio`` is that of the disc as projected, or of the Sersic body; edge on, it is
        scale height over scale length. ``bar_strength`` is none, weak or strong. ``bar_length_arcsec`` (full
        length), ``bar_position_angle_deg`` and ``bar_axis_ratio`` are of the ellipse that the bar's edge makes
        on the sky, before the seeing.

    Raises
    ------
    ValueError
        If the mix names something else than a class, or its shares are negative or all zero.
    """
    rng = chance(seed, source_id, "truth")
    classes = OPTICAL_MORPHOLOGY.classes
    label = draw_from_mix(rng, dict.fromkeys(classes, 1.0) if mix is None else mix, classes)
    truth = dict.fromkeys(TRUTH_KEYS) | {
        "class_label": label,
        "class_index": classes.index(label),
        "position_angle_deg": rng.uniform(0, 180),
        "bar_strength": "none",
        "lopsidedness": 0.0,
        "r_minus_z_offset_mag": rng.normal(0, 0.08),
    }
    truth = _with_light_left_for_the_body(truth | DRAW_CLASS[label](rng, truth))
    truth |= _observing_conditions(chance(seed, source_id, "conditions"), artefact_fraction)
    return plain(_with_derived(truth))


def _observing_conditions(rng: np.random.Generator, artefact_fraction: float) -> dict:
    fwhm = PSF_FWHM_ARCSEC * np.exp(PSF_SCATTER * (rng.standard_normal() + 0.5 * rng.standard_normal(3)))
    noise = NOISE_NANOMAGGY * np.exp(NOISE_SCATTER * rng.standard_normal() + 0.12 * rng.standard_normal(3))
    artefact = rng.choice(ARTEFACTS[1:]) if rng.random() < artefact_fraction else ARTEFACTS[0]
    return {
        **{f"psf_fwhm_{band}_arcsec": value for band, value in zip(BANDS, fwhm, strict=True)},
        **{f"noise_{band}_nanomaggy": value for band, value in zip(BANDS, noise, strict=True)},
        "artefact": str(artefact),
    }


def _with_light_left_for_the_body(truth: dict) -> dict:
    """Scale the shares of the components down where they claim more than `LARGEST_CLAIM`."""
    shares = {share: truth[share] for share, _ in LIGHT.values() if truth[share]}
    excess = max(1.0, sum(shares.values()) / LARGEST_CLAIM)
    return truth | {name: share / excess for name, share in shares.items()}


def _with_derived(truth: dict) -> dict:
    """Add what follows from what was drawn: fluxes and lengths in kpc."""
    fluxes = component_fluxes(truth)
    total = sum(fluxes.values())
    kpc = float(kpc_per_arcsec(truth["redshift"]))
    bar = truth["bar_length_arcsec"]
    colours_seen = {"body_g_minus_r_mag"} | {colour for share, colour in LIGHT.values() if truth[share]}
    return truth | {
        **{colour: None for _, colour in LIGHT.values() if colour not in colours_seen},
        **{f"flux_{band}_nanomaggy": value for band, value in zip(BANDS, total, strict=True)},
        **{f"{name}_flux_r_nanomaggy": flux[1] for name, flux in fluxes.items()},
        "half_light_radius_kpc": truth["half_light_radius_arcsec"] * kpc,
        "bar_length_kpc": None if bar is None else bar * kpc,
    }


def in_bands(flux_r: float, g_minus_r: float, r_minus_z_offset: float = 0.0) -> np.ndarray:
    """Return the flux in g, r, z of a galaxy's light; redder in g - r is redder in r - z."""
    r_minus_z = 0.04 + 0.65 * g_minus_r + r_minus_z_offset
    return flux_r * 10 ** (0.4 * np.array([-g_minus_r, 0, r_minus_z]))


def component_fluxes(truth: dict) -> dict[str, np.ndarray]:
    """Return the flux of each component in g, r and z, (3,) in nanomaggies, before dust."""
    total, offset = 10 ** (0.4 * (22.5 - truth["r_mag"])), truth["r_minus_z_offset_mag"]
    shares = {name: truth[share] or 0.0 for name, (share, _) in LIGHT.items()}
    fluxes = {
        name: in_bands(share * total, truth[LIGHT[name][1]], offset) for name, share in shares.items() if share > 0
    }
    body = (1 - sum(shares.values())) * total
    return fluxes | {"body": in_bands(body, truth["body_g_minus_r_mag"], offset)}
