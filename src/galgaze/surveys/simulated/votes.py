"""What volunteers would say of a simulated galaxy: fractions of Galaxy Zoo votes, from its truth.

Smooth functions of what was drawn, and the same for the same truth: no volunteers are drawn. They follow in sign and
rough size how votes depend on what there is to be seen: bars get votes as they are long against the seeing, luminous
and little foreshortened (Masters et al. 2011, MNRAS 411, 2026, leave out discs inclined by more than 60 deg, because
their bars are missed). The numbers are ours, set so that each class is what its volunteers agreed on; they were fitted
to nothing.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from galgaze.tasks import OPTICAL_MORPHOLOGY

CLASSES = OPTICAL_MORPHOLOGY.classes
UNBARRED = [CLASSES.index(name) for name in ("unbarred_tight_spiral", "unbarred_loose_spiral")]
# Share of volunteers who call an image with this fault an artifact.
ARTEFACT_VOTES = {
    "none": 0.01, "satellite_trail": 0.1, "bleed_trail": 0.3, "partial_coverage": 0.4, "missing_band": 0.4
}  # fmt: skip
# Ends of the fractions: whatever there is to see, a few volunteers click something else.
LEAST, MOST = 0.04, 0.96
EDGE_ON_FROM_DEG, EDGE_ON_RAMP_DEG = 79.0, 2.0
SMALLEST_ARCSEC = 1e-3
NUMBERS = (
    "class_index", "inclination_deg", "axis_ratio", "half_light_radius_arcsec", "psf_fwhm_r_arcsec",
    "arm_fraction", "arm_contrast", "ring_fraction", "clump_fraction", "tidal_fraction", "companion_fraction",
    "lopsidedness", "bar_fraction", "bar_length_arcsec", "bar_axis_ratio",
)  # fmt: skip


def simulated_votes(truth: pd.DataFrame | Mapping) -> np.ndarray:
    """Vote fractions of simulated galaxies.

    Parameters
    ----------
    truth : pandas.DataFrame or mapping
        Rows of `galgaze.surveys.simulated.optical.optical_truth`, or one such mapping. What a galaxy has not is None
        or NaN.

    Returns
    -------
    numpy.ndarray, shape (N, 10), float32
        Answers of `galgaze.tasks.QUESTIONS`, one question after the other; those of a question sum to 1, also where
        the question would hardly ever be asked.

    Raises
    ------
    ValueError
        If columns of the optical truth are missing.
    """
    table = pd.DataFrame([truth]) if isinstance(truth, Mapping) else truth
    missing = [name for name in (*NUMBERS, "bar_strength", "artefact") if name not in table]
    if missing:
        raise ValueError(f"this is no truth of optical galaxies: it lacks {', '.join(missing[:3])}")
    # Nothing drawn is nothing there; but a body without a disc has no inclination.
    numbers = {name: pd.to_numeric(table[name]).to_numpy(float) for name in NUMBERS}
    has_disc = ~np.isnan(numbers["inclination_deg"])
    seen = {name: np.nan_to_num(values) for name, values in numbers.items()}
    strength = table["bar_strength"].to_numpy()
    edge_on = _edge_on(seen, has_disc)
    arms = _arms(seen)
    barred = _barred(seen, strength)
    strong = barred * _strong_if_barred(seen, strength)
    artifact = np.array([ARTEFACT_VOTES[name] for name in table["artefact"]])
    featured = (1 - artifact) * _featured(seen, has_disc, edge_on)
    fractions = [
        1 - artifact - featured, featured, artifact,
        edge_on, 1 - edge_on,
        arms, 1 - arms,
        strong, barred - strong, 1 - barred,
    ]  # fmt: skip
    return np.stack(fractions, axis=1).astype(np.float32)


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _between_ends(share: np.ndarray) -> np.ndarray:
    return LEAST + (MOST - LEAST) * share


def _clear_of_seeing(seen: dict, radius_arcsec: np.ndarray) -> np.ndarray:
    """0..1, by this radius over the seeing's width; a half where they are equal."""
    return _logistic(_ln_ratio(radius_arcsec, seen["psf_fwhm_r_arcsec"]) / 0.25)


def _ln_ratio(length_arcsec: np.ndarray, unit_arcsec: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(length_arcsec, SMALLEST_ARCSEC) / np.maximum(unit_arcsec, SMALLEST_ARCSEC))


def _edge_on(seen: dict, has_disc: np.ndarray) -> np.ndarray:
    """By inclination; a body without a disc looks edge-on where it is as slim as a cigar."""
    disc = _logistic((seen["inclination_deg"] - EDGE_ON_FROM_DEG) / EDGE_ON_RAMP_DEG)
    body = _logistic((0.38 - seen["axis_ratio"]) / 0.06)
    return _between_ends(np.where(has_disc, disc, body))


def _featured(seen: dict, has_disc: np.ndarray, edge_on: np.ndarray) -> np.ndarray:
    """By the share of the light in anything but a smooth body, where the galaxy is large against the seeing.

    A disc is half a feature itself ("featured or disk"), a disc seen from the side wholly, a slim body a little; and
    so is one side larger than the other.
    """
    structure = (
        _arm_light(seen)
        + seen["bar_fraction"]
        + seen["ring_fraction"]
        + seen["clump_fraction"]
        + 1.5 * seen["tidal_fraction"]
        + 0.5 * seen["companion_fraction"]
        + 0.4 * seen["lopsidedness"]
        + np.where(has_disc, 0.06 + 0.2 * edge_on, 0.04 * (1 - seen["axis_ratio"]))
    )
    resolved = _clear_of_seeing(seen, seen["half_light_radius_arcsec"])
    return _between_ends(_logistic((structure * resolved - 0.12) / 0.055))


def _arm_light(seen: dict) -> np.ndarray:
    """Share of the light in arms, more for sharp ones."""
    return seen["arm_fraction"] * np.sqrt(np.maximum(seen["arm_contrast"], 0) / 3)


def _arms(seen: dict) -> np.ndarray:
    """By the arms' light and contrast; they are lost as the disc is seen from the side."""
    from_above = _logistic((75 - seen["inclination_deg"]) / 5)
    resolved = _clear_of_seeing(seen, seen["half_light_radius_arcsec"])
    return _between_ends(from_above * resolved * _logistic((_arm_light(seen) - 0.05) / 0.025))


def _barred(seen: dict, strength: np.ndarray) -> np.ndarray:
    """Strong or weak: by the bar's length against the seeing, its light, its shape on the sky and the inclination.

    Of a class that most volunteers called unbarred, most have overlooked the bar.
    """
    odds = (
        2.2
        + 1.2 * _ln_ratio(seen["bar_length_arcsec"], 4 * seen["psf_fwhm_r_arcsec"])
        + (seen["bar_fraction"] - 0.13) / 0.04
        + (0.45 - seen["bar_axis_ratio"]) / 0.2
        - 2.0 * _logistic((seen["inclination_deg"] - 65) / 4)
        - 3.0 * np.isin(seen["class_index"], UNBARRED)
    )
    there = np.isin(strength, ("weak", "strong"))
    return _between_ends(np.where(there, _logistic(odds), 0.02 + 0.1 * seen["lopsidedness"]))


def _strong_if_barred(seen: dict, strength: np.ndarray) -> np.ndarray:
    """Of those who see a bar, how many call it strong: by its light, and its length against the disc."""
    odds = (
        np.where(strength == "strong", 1.6, -1.2)
        + (seen["bar_fraction"] - 0.13) / 0.05
        + 0.8 * _ln_ratio(seen["bar_length_arcsec"], 1.3 * seen["half_light_radius_arcsec"])
    )
    there = np.isin(strength, ("weak", "strong"))
    return _between_ends(np.where(there, _logistic(odds), 0.1))
