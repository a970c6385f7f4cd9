"""What makes a galaxy one of the ten classes: for each, the parameters that are its own.

Each function takes a source's generator and the truth so far (class and position angle), and returns what it adds.
"""

import numpy as np

from galgaze.surveys.simulated.optical import population
from galgaze.surveys.simulated.optical.disc import HALF_LIGHT_PER_SCALE_LENGTH, projected_bar

DISTURBANCES = {"lopsided": 0.35, "irregular": 0.3, "tail": 0.2, "shells": 0.15}  # and the share of each


def _red(rng: np.random.Generator, galaxy: dict) -> float:
    """Old stars' g - r: the red sequence at z = 0 (Blanton & Moustakas 2009, ARA&A 47, 159), reddened."""
    return rng.normal(0.74 - 0.02 * (galaxy["absolute_r_mag"] + 21), 0.05) + 1.5 * galaxy["redshift"]


def _disc_colours(rng: np.random.Generator, galaxy: dict, median: float = 0.48) -> dict:
    """Colours of a disc, the blue cloud, and of what is in it."""
    disc = np.clip(rng.normal(median - 0.03 * (galaxy["absolute_r_mag"] + 21), 0.1), 0.2, 0.8)
    disc += 0.7 * galaxy["redshift"]
    arm = disc - rng.uniform(0.03, 0.22)
    return {
        "body_g_minus_r_mag": disc,
        "bulge_g_minus_r_mag": max(disc + rng.uniform(0.05, 0.35), 0.4),
        "bar_g_minus_r_mag": disc + rng.uniform(0.0, 0.28),
        "arm_g_minus_r_mag": arm,
        "clump_g_minus_r_mag": arm - rng.uniform(0.05, 0.3),
        "tidal_g_minus_r_mag": disc - rng.uniform(0, 0.15),
        # By how much (ln) a disc's scale length is larger in g than in r, and in r than in z: 1.1 to 1.3 from
        # blue to near infrared (de Jong 1996, A&A 313, 377).
        "colour_gradient": rng.uniform(0.0, 0.14),
    }


def _smooth_truth(rng: np.random.Generator, truth: dict) -> dict:
    low, high = {"round_smooth": (0.84, 1), "in_between_smooth": (0.5, 0.8), "cigar_smooth": (0.22, 0.48)}[
        truth["class_label"]
    ]
    late = rng.random() < 0.5  # a disc whose features no telescope on the ground shows
    galaxy = population.draw_galaxy(rng, late, 1.3 if truth["class_label"] == "cigar_smooth" else 1.7, 8.0)
    axis_ratio = rng.uniform(low, high)
    # Flattened galaxies tend to discs; indices on a grid, since GalSim makes a table for each.
    flat = late or truth["class_label"] == "cigar_smooth"
    colour = np.clip(rng.normal(0.52, 0.12), 0.25, 0.8) if late else _red(rng, galaxy)
    return galaxy | {
        "axis_ratio": axis_ratio,
        "half_light_radius_arcsec": min(galaxy["circular_half_light_radius_arcsec"] / np.sqrt(axis_ratio), 9.0),
        "sersic_index": rng.choice([1.0, 1.5, 2.0, 2.5] if flat else [2.0, 2.5, 3.0, 4.0]),
        "body_g_minus_r_mag": colour,
    }


def _spiral_truth(rng: np.random.Generator, truth: dict) -> dict:
    label = truth["class_label"]
    tight = label == "unbarred_tight_spiral"
    if label == "barred_spiral":
        strength, tight = ("strong" if rng.random() < 0.75 else "weak"), rng.random() < 0.5
    else:
        # Volunteers overlook a weak bar now and then.
        strength = "weak" if rng.random() < 0.08 else "none"
    galaxy = population.draw_galaxy(rng, True, 3.3, 12.0)
    axis_ratio = rng.uniform(0.42, 1)
    half_light = 1.2 * galaxy["circular_half_light_radius_arcsec"]
    scale_length = half_light / HALF_LIGHT_PER_SCALE_LENGTH
    spiral = galaxy | {
        **_disc_colours(rng, galaxy, 0.54 if tight else 0.46),
        "half_light_radius_arcsec": half_light,
        "axis_ratio": axis_ratio,
        "inclination_deg": np.degrees(np.arccos(axis_ratio)),
        "bulge_half_light_radius_arcsec": half_light * rng.uniform(0.1, 0.22),
        "bulge_sersic_index": rng.choice([1.0, 1.5, 2.0, 3.0]),
        "bulge_axis_ratio": 1.0,
        "bulge_fraction": rng.uniform(0.06, 0.38) if tight else rng.uniform(0.02, 0.2),
        "pitch_angle_deg": rng.uniform(7, 17) if tight else rng.uniform(19, 38),
        # Wound tightly, many arms would lie closer together than the seeing can tell.
        "n_arms": int(rng.choice([2, 2, 2, 3, 4] if tight else [2, 2, 2, 3, 3, 4, 5])),
        "arm_winding": int(rng.choice([-1, 1])),
        "arm_start_arcsec": scale_length * rng.uniform(0.35, 0.9),
        "arm_end_arcsec": scale_length * rng.uniform(2.3, 4.0),
        "arm_contrast": rng.uniform(1.5, 4.5),
        "arm_fraction": rng.uniform(0.08, 0.4),
        "clump_fraction": rng.uniform(0.0, 0.08),
        "flocculence": rng.uniform(0.1, 0.9),
        "dust_optical_depth_r": rng.uniform(0, 0.6),
        "lopsidedness": abs(rng.normal(0, 0.12)),
        "lopsided_towards_deg": rng.uniform(0, 360),
    }
    if rng.random() < 0.2:
        spiral |= _ring(rng, scale_length * rng.uniform(0.6, 1.8))
    if strength != "none":
        spiral |= _bar_truth(rng, spiral | {"position_angle_deg": truth["position_angle_deg"]}, strength, scale_length)
    return spiral


def _ring(rng: np.random.Generator, radius_arcsec: float) -> dict:
    return {
        "ring_radius_arcsec": radius_arcsec,
        "ring_width_arcsec": max(0.6, radius_arcsec * rng.uniform(0.1, 0.22)),
        "ring_fraction": rng.uniform(0.05, 0.16),
    }


def _bar_truth(rng: np.random.Generator, spiral: dict, strength: str, scale_length: float) -> dict:
    """A bar and what follows it: arms from its ends, rings around it.

    Lengths: bars end at 0.5 to 2 scale lengths, median 1.2 (Erwin 2005, MNRAS 364, 283, for S0 to Sb); shares
    of the light 0.05 to 0.3 (Gadotti 2011, MNRAS 415, 3308).
    """
    strong = strength == "strong"
    half_length = scale_length * np.clip(1.2 * np.exp(0.25 * rng.standard_normal()) * (1 if strong else 0.75), 0.5, 2.2)
    half_length = max(half_length, 2.8 if strong else 2.2)  # shorter ones nobody sees through the seeing
    bar = {
        "bar_strength": strength,
        "bar_face_on_length_arcsec": 2 * half_length,
        "bar_face_on_axis_ratio": rng.uniform(0.2, 0.38) if strong else rng.uniform(0.35, 0.5),
        "bar_angle_in_disc_deg": rng.uniform(0, 180),
        "bar_fraction": rng.uniform(0.13, 0.32) if strong else rng.uniform(0.06, 0.14),
        "bulge_fraction": spiral["bulge_fraction"] * 0.6,
        "arm_start_arcsec": half_length * rng.uniform(0.8, 1.1),
        "arm_end_arcsec": max(spiral["arm_end_arcsec"], 1.8 * half_length),
        "arm_fraction": rng.uniform(0.03, 0.3),
        "n_arms": int(rng.choice([2, 2, 2, 2, 3, 4])),
    }
    if rng.random() < 0.35:
        bar |= _ring(rng, half_length * rng.uniform(1.0, 1.2))
    return bar | projected_bar(spiral | bar)


def _edge_on_truth(rng: np.random.Generator, truth: dict) -> dict:
    bulge = truth["class_label"] == "edge_on_with_bulge"
    galaxy = population.draw_galaxy(rng, True, 2.4, 10.0)
    # Seen from the side, a disc's circularised radius is that much smaller than the disc.
    half_light = np.clip((1.8 if bulge else 2.2) * galaxy["circular_half_light_radius_arcsec"], 4.0, 20.0)
    scale_length = half_light / HALF_LIGHT_PER_SCALE_LENGTH
    inclination = rng.uniform(83, 90)
    thickness = rng.uniform(0.1, 0.2) if bulge else rng.uniform(0.06, 0.15)
    edge_on = galaxy | {
        **_disc_colours(rng, galaxy, 0.7 if bulge else 0.56),
        "half_light_radius_arcsec": half_light,
        "axis_ratio": max(0.4 / scale_length, np.hypot(thickness, 0.7 * np.cos(np.radians(inclination)))),
        "inclination_deg": inclination,
        "bulge_fraction": rng.uniform(0.0, 0.05),
        "bulge_half_light_radius_arcsec": half_light * rng.uniform(0.06, 0.12),
        "bulge_sersic_index": 1.0,
        "bulge_axis_ratio": rng.uniform(0.4, 0.8),
        "flocculence": rng.uniform(0.0, 0.5),
        "dust_optical_depth_r": rng.uniform(0.4, 3.0) if rng.random() < 0.7 else 0.0,
        "clump_fraction": 0.0 if bulge else rng.uniform(0, 0.05),
    }
    if bulge:
        edge_on |= {
            "bulge_fraction": rng.uniform(0.2, 0.55),
            "bulge_half_light_radius_arcsec": max(1.2, half_light * rng.uniform(0.14, 0.32)),
            "bulge_sersic_index": rng.choice([1.5, 2.0, 3.0]),
            "bulge_axis_ratio": rng.uniform(0.6, 0.95),
        }
    return edge_on


def _disturbed_truth(rng: np.random.Generator, truth: dict) -> dict:
    kind = str(rng.choice(list(DISTURBANCES), p=list(DISTURBANCES.values())))
    if kind == "shells":
        return _shells_truth(rng)
    galaxy = population.draw_galaxy(rng, True, 2.2, 9.0)
    half_light = 1.2 * galaxy["circular_half_light_radius_arcsec"]
    scale_length = half_light / HALF_LIGHT_PER_SCALE_LENGTH
    axis_ratio = rng.uniform(0.25, 0.85) if kind == "irregular" else rng.uniform(0.4, 0.95)
    return galaxy | {
        **_disc_colours(rng, galaxy, 0.36 if kind == "irregular" else 0.45),
        "disturbance": kind,
        "half_light_radius_arcsec": half_light,
        "axis_ratio": axis_ratio,
        "inclination_deg": np.degrees(np.arccos(axis_ratio)),
        "bulge_half_light_radius_arcsec": half_light * rng.uniform(0.1, 0.25),
        "bulge_sersic_index": rng.choice([1.0, 1.5, 2.0]),
        "bulge_axis_ratio": 1.0,
        "bulge_fraction": 0.0 if kind == "irregular" else rng.uniform(0.03, 0.3),
        "pitch_angle_deg": rng.uniform(15, 40),
        "n_arms": int(rng.choice([1, 1, 2])),
        "arm_winding": int(rng.choice([-1, 1])),
        "arm_start_arcsec": scale_length * rng.uniform(0.3, 0.9),
        "arm_end_arcsec": scale_length * rng.uniform(2.5, 4.5),
        "arm_contrast": rng.uniform(1.5, 3.5),
        "arm_fraction": rng.uniform(0.1, 0.4) if kind == "lopsided" else rng.uniform(0, 0.15),
        "clump_fraction": rng.uniform(0.03, 0.25),
        "tidal_fraction": rng.uniform(0.08, 0.25) if kind == "tail" else rng.uniform(0.0, 0.08),
        "flocculence": rng.uniform(0.7, 1.3) if kind == "irregular" else rng.uniform(0.2, 0.8),
        "dust_optical_depth_r": rng.uniform(0, 0.8),
        "lopsidedness": rng.uniform(0.15, 0.35) if kind == "tail" else rng.uniform(0.25, 0.5),
        "lopsided_towards_deg": rng.uniform(0, 360),
    }


def _shells_truth(rng: np.random.Generator) -> dict:
    """An elliptical that has swallowed something: shells and a plume."""
    galaxy = population.draw_galaxy(rng, False, 2.2, 8.0)
    axis_ratio, colour = rng.uniform(0.6, 0.95), _red(rng, galaxy)
    return galaxy | {
        "disturbance": "shells",
        "axis_ratio": axis_ratio,
        "half_light_radius_arcsec": galaxy["circular_half_light_radius_arcsec"] / np.sqrt(axis_ratio),
        "sersic_index": rng.choice([2.0, 3.0, 4.0]),
        "body_g_minus_r_mag": colour,
        "tidal_g_minus_r_mag": colour - rng.uniform(0.0, 0.2),
        "clump_g_minus_r_mag": colour - rng.uniform(0.0, 0.3),
        "clump_fraction": rng.uniform(0.0, 0.04),
        "tidal_fraction": rng.uniform(0.15, 0.35),
        "dust_optical_depth_r": rng.uniform(0, 1.0),
        "lopsidedness": rng.uniform(0, 0.2),
        "lopsided_towards_deg": rng.uniform(0, 360),
    }


def _merging_truth(rng: np.random.Generator, truth: dict) -> dict:
    late = rng.random() < 0.55
    galaxy = population.draw_galaxy(rng, late, 1.9, 7.0)
    axis_ratio = rng.uniform(0.45, 0.95)
    half_light = galaxy["circular_half_light_radius_arcsec"] / np.sqrt(axis_ratio)
    merging = galaxy | _disc_colours(rng, galaxy)
    merging |= {
        "half_light_radius_arcsec": half_light,
        "axis_ratio": axis_ratio,
        "sersic_index": None if late else rng.choice([2.0, 3.0, 4.0]),
        "companion_g_minus_r_mag": _red(rng, galaxy) if rng.random() < 0.5 else rng.uniform(0.3, 0.8),
        "companion_separation_arcsec": rng.uniform(2.5, 3.5 + 2.0 * half_light),
        "companion_position_angle_deg": rng.uniform(0, 360),
        "companion_fraction": rng.uniform(0.2, 0.48),
        "tidal_fraction": rng.uniform(0.04, 0.22),
        "lopsidedness": rng.uniform(0.05, 0.35),
        "lopsided_towards_deg": rng.uniform(0, 360),
    }
    if not late:
        return merging | {"body_g_minus_r_mag": _red(rng, galaxy)}
    scale_length = half_light / HALF_LIGHT_PER_SCALE_LENGTH
    return merging | {
        "inclination_deg": np.degrees(np.arccos(axis_ratio)),
        "bulge_half_light_radius_arcsec": half_light * rng.uniform(0.12, 0.25),
        "bulge_sersic_index": rng.choice([1.0, 2.0]),
        "bulge_axis_ratio": 1.0,
        "bulge_fraction": rng.uniform(0.05, 0.25),
        "pitch_angle_deg": rng.uniform(18, 38),
        "n_arms": int(rng.choice([1, 2, 2])),
        "arm_winding": int(rng.choice([-1, 1])),
        "arm_start_arcsec": scale_length * rng.uniform(0.3, 0.9),
        "arm_end_arcsec": scale_length * rng.uniform(2.5, 4.0),
        "arm_contrast": rng.uniform(1.5, 3.5),
        "arm_fraction": rng.uniform(0.0, 0.25),
        "clump_fraction": rng.uniform(0.0, 0.06),
        "flocculence": rng.uniform(0.1, 0.8),
        "dust_optical_depth_r": rng.uniform(0, 0.6),
    }


DRAW_CLASS = {
    "disturbed": _disturbed_truth,
    "merging": _merging_truth,
    "round_smooth": _smooth_truth,
    "in_between_smooth": _smooth_truth,
    "cigar_smooth": _smooth_truth,
    "barred_spiral": _spiral_truth,
    "unbarred_tight_spiral": _spiral_truth,
    "unbarred_loose_spiral": _spiral_truth,
    "edge_on_without_bulge": _edge_on_truth,
    "edge_on_with_bulge": _edge_on_truth,
}
