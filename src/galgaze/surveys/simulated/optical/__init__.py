"""Simulated galaxies of the ten Galaxy10 DECaLS classes, as DECaLS would see them in g, r and z.

``population`` says which galaxies there are and ``classes`` what makes each class, ``truth`` draws all parameters of
one, ``galaxies`` puts it on a ``canvas`` (``disc`` knows what is painted on discs), and ``scene`` makes the picture
around it.
"""

from galgaze.surveys.simulated.optical.canvas import NATIVE_PIXEL_ARCSEC
from galgaze.surveys.simulated.optical.disc import BAR_FERRERS_INDEX, bar_brightness
from galgaze.surveys.simulated.optical.scene import draw_optical, optical_brightness
from galgaze.surveys.simulated.optical.truth import SKY_VERSION, optical_truth

__all__ = [
    "BAR_FERRERS_INDEX",
    "NATIVE_PIXEL_ARCSEC",
    "SKY_VERSION",
    "bar_brightness",
    "draw_optical",
    "optical_brightness",
    "optical_truth",
]
