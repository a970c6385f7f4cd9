"""Simulated radio galaxies as FIRST would see them: drawn parameters (truth), shapes, and the scene around them."""

from galgaze.surveys.simulated.radio.scene import STEP_JY_PER_BEAM, draw_radio, radio_brightness
from galgaze.surveys.simulated.radio.shapes import BEAM_FWHM_ARCSEC, spines
from galgaze.surveys.simulated.radio.truth import DEFAULT_MIX, NOISE_JY_PER_BEAM, SKY_VERSION, radio_truth

__all__ = [
    "BEAM_FWHM_ARCSEC",
    "DEFAULT_MIX",
    "NOISE_JY_PER_BEAM",
    "SKY_VERSION",
    "STEP_JY_PER_BEAM",
    "draw_radio",
    "radio_brightness",
    "radio_truth",
    "spines",
]
