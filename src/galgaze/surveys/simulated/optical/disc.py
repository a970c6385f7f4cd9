"""What is painted on a disc: its plane, arms, bar, ring, and the unevenness of real discs."""

import numpy as np
from scipy import ndimage

HALF_LIGHT_PER_SCALE_LENGTH = 1.678  # of an exponential disc
BAR_FERRERS_INDEX = 0.5  # (1 - m^2)^n: a bar with a definite end
TEXTURE_RADII, TEXTURE_ANGLES = 48, 128  # the grid of a texture, in ln radius and angle
TEXTURE_RANGE = (0.08, 6.0)  # radii in scale lengths


def polar(radius, angle_deg) -> tuple[np.ndarray, np.ndarray]:
    """Return east and north of a place at this distance and position angle."""
    return radius * np.sin(np.radians(angle_deg)), radius * np.cos(np.radians(angle_deg))


def disc_plane(east, north, truth: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return face-on coordinates along and across the line of nodes."""
    sin, cos = polar(1.0, truth["position_angle_deg"])
    return east * sin + north * cos, (north * sin - east * cos) / truth["axis_ratio"]


def disc_to_sky(along, across, truth: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return east and north of places in the disc: the inverse of `disc_plane`."""
    sin, cos = polar(1.0, truth["position_angle_deg"])
    across = across * truth["axis_ratio"]
    return along * sin - across * cos, along * cos + across * sin


def projected_bar(truth: dict) -> dict:
    """Return length, position angle and axis ratio of the inclined bar: an ellipse remains an ellipse."""
    twist = np.radians(truth["bar_angle_in_disc_deg"])
    to_sky = np.array(disc_to_sky(*np.eye(2), truth))
    bar_to_disc = np.array([[np.cos(twist), -np.sin(twist)], [np.sin(twist), np.cos(twist)]])
    lengths = truth["bar_face_on_length_arcsec"] * np.array([1, truth["bar_face_on_axis_ratio"]])
    directions, lengths, _ = np.linalg.svd(to_sky @ bar_to_disc @ np.diag(lengths))
    east, north = directions[:, 0]
    return {
        "bar_length_arcsec": lengths[0],
        "bar_position_angle_deg": np.degrees(np.arctan2(east, north)) % 180,
        "bar_axis_ratio": lengths[1] / lengths[0],
    }


def bar_brightness(truth: dict, east: np.ndarray, north: np.ndarray) -> np.ndarray:
    """Return the bar's surface brightness (any unit) at these offsets in arcsec, without seeing and noise."""
    along, across = disc_plane(east, north, truth)
    twist, half_length = np.radians(truth["bar_angle_in_disc_deg"]), truth["bar_face_on_length_arcsec"] / 2
    length = (along * np.cos(twist) + across * np.sin(twist)) / half_length
    width = (across * np.cos(twist) - along * np.sin(twist)) / (half_length * truth["bar_face_on_axis_ratio"])
    return np.maximum(1 - length**2 - width**2, 0) ** BAR_FERRERS_INDEX


def lopsided_radius(truth: dict, radius: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    """Return the radius that a lopsided disc has at these places: it reaches further out to one side.

    The direction is measured in the disc, from its line of nodes.
    """
    if not truth["lopsidedness"]:
        return radius
    return radius * (1 - truth["lopsidedness"] * np.cos(azimuth - np.radians(truth["lopsided_towards_deg"])))


def disc_brightness(truth: dict, radius: np.ndarray, scale_length: float) -> np.ndarray:
    """Return exponential discs in g, r, z, (3, N, N): the redder the band, the shorter the scale length."""
    steps = truth["colour_gradient"] * np.array([1, 0, -1])
    return np.stack([np.exp(-radius / (scale_length * np.exp(step))) for step in steps])


def arm_azimuth(truth: dict, radius: np.ndarray) -> np.ndarray:
    """Return where in the disc, in radians, the first arm is at this radius; it starts at a bar's end."""
    turn = np.log(radius / truth["arm_start_arcsec"]) / np.tan(np.radians(truth["pitch_angle_deg"]))
    return np.radians(truth["bar_angle_in_disc_deg"] or 0.0) + truth["arm_winding"] * turn


def arm_ridges(truth: dict, radius: np.ndarray, azimuth: np.ndarray, arms: list[tuple[float, float]]) -> np.ndarray:
    """Return logarithmic arms, 1 on the ridge of the strongest: for each arm its angle (rad) and strength."""
    along_arm = azimuth - arm_azimuth(truth, radius)
    sharpness = truth["arm_contrast"] * max(1, truth["n_arms"]) ** 2 / 4
    ridges = np.zeros_like(radius)
    for angle, strength in arms:
        ridges += strength * np.exp(sharpness * (np.cos(along_arm - angle) - 1))
    start, end = truth["arm_start_arcsec"], truth["arm_end_arcsec"]
    # Arms open softly at their start, and fade at their end.
    opening = 1 / (1 + np.exp(np.clip((start - radius) / (0.08 * start), -50, 50)))
    return ridges * opening / (1 + np.exp(np.clip((radius - end) / (0.15 * end), -50, 50)))


def ring_brightness(truth: dict, radius: np.ndarray) -> np.ndarray:
    """Return a Gaussian ring."""
    return np.exp(-0.5 * ((radius - truth["ring_radius_arcsec"]) / truth["ring_width_arcsec"]) ** 2)


class Texture:
    """Random unevenness of a disc, sheared into short spiral pieces by its rotation; log-normal, of mean about 1.

    A smooth random field on a grid of ln radius and angle: there a logarithmic spiral is a straight line.
    """

    def __init__(self, rng: np.random.Generator, radius: np.ndarray, azimuth: np.ndarray, truth: dict, scale_length):
        low, high = np.log(TEXTURE_RANGE[0] * scale_length), np.log(TEXTURE_RANGE[1] * scale_length)
        depth = (np.log(radius) - low) / (high - low) * (TEXTURE_RADII - 1)
        pitch = np.radians(max(truth["pitch_angle_deg"] or 25.0, 12.0))
        shear = (truth["arm_winding"] or 1) * np.log(radius) / np.tan(pitch)
        turn = (azimuth - shear) / (2 * np.pi) * TEXTURE_ANGLES
        self.places = np.array([np.clip(depth, 0, TEXTURE_RADII - 1), turn % TEXTURE_ANGLES])
        self.rng = rng

    def draw(self, amplitude: float, smoothing: tuple[float, float] = (1.2, 3.0)) -> np.ndarray | float:
        """Return exp(amplitude * field); the smoothing is in cells of ln radius and angle."""
        field = self.rng.standard_normal((TEXTURE_RADII, TEXTURE_ANGLES))
        field = ndimage.gaussian_filter(field, smoothing, mode=("nearest", "wrap"))
        field *= amplitude / field.std()
        field = np.concatenate([field, field[:, :1]], axis=1)  # so that the angle closes
        return np.exp(ndimage.map_coordinates(field, self.places, order=1, mode="nearest"))
