"""How a galaxy of each class is put on the canvas, from its truth and its own stream of chance."""

import numpy as np

from galgaze.surveys.simulated.optical.canvas import Canvas
from galgaze.surveys.simulated.optical.disc import (
    HALF_LIGHT_PER_SCALE_LENGTH,
    Texture,
    arm_azimuth,
    arm_ridges,
    bar_brightness,
    disc_brightness,
    disc_plane,
    disc_to_sky,
    lopsided_radius,
    polar,
    ring_brightness,
)
from galgaze.surveys.simulated.optical.truth import component_fluxes

Fluxes = dict[str, np.ndarray]


def put_galaxy(canvas: Canvas, truth: dict, rng: np.random.Generator) -> None:
    """Put the galaxy of this truth on the canvas."""
    fluxes = component_fluxes(truth)
    label = truth["class_label"]
    if label in ("edge_on_without_bulge", "edge_on_with_bulge"):
        _put_edge_on(canvas, truth, fluxes, rng)
    elif truth["sersic_index"] is not None:
        _put_sersic(canvas, truth, fluxes)
    else:
        _put_disc(canvas, truth, fluxes, rng)
    if label == "disturbed":
        _put_disturbance(canvas, truth, fluxes, rng)
    if label == "merging":
        _put_companion(canvas, truth, fluxes, rng)


def _put_sersic(canvas: Canvas, truth: dict, fluxes: Fluxes):
    shape = (truth["half_light_radius_arcsec"], truth["axis_ratio"], truth["position_angle_deg"])
    canvas.add_sersic(fluxes["body"], truth["sersic_index"], *shape)


def _put_bulge(canvas: Canvas, truth: dict, fluxes: Fluxes):
    if "bulge" in fluxes:
        shape = (truth["bulge_half_light_radius_arcsec"], truth["bulge_axis_ratio"], truth["position_angle_deg"])
        canvas.add_sersic(fluxes["bulge"], truth["bulge_sersic_index"], *shape)


# ----------------------------------------------------------------------------------------------- discs


def _arms(truth: dict, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Return angle and strength of each arm: no two arms of a galaxy are alike, nor evenly spaced."""
    number = truth["n_arms"]
    angles = 2 * np.pi * np.arange(number) / number + rng.normal(0, 0.35 / number, number)
    return list(zip(angles, rng.uniform(0.55, 1.0, number), strict=True))


def _put_disc(canvas: Canvas, truth: dict, fluxes: Fluxes, rng: np.random.Generator):
    along, across = disc_plane(canvas.east, canvas.north, truth)
    azimuth = np.arctan2(across, along)
    radius = lopsided_radius(truth, np.hypot(along, across) + 1e-2, azimuth)
    scale_length = truth["half_light_radius_arcsec"] / HALF_LIGHT_PER_SCALE_LENGTH
    texture = Texture(rng, radius, azimuth, truth, scale_length)
    arms = _arms(truth, rng)
    ridges = arm_ridges(truth, radius, azimuth, arms)
    disc = disc_brightness(truth, radius, scale_length)
    # Young stars are strewn more unevenly than old ones.
    uneven = texture.draw(truth["flocculence"])
    canvas.add_pattern(fluxes["body"], disc * uneven**0.5)
    if "arms" in fluxes:
        canvas.add_pattern(fluxes["arms"], ridges * np.exp(-radius / (1.2 * scale_length)) * uneven)
    if "ring" in fluxes:
        canvas.add_pattern(fluxes["ring"], ring_brightness(truth, radius) * uneven**0.5)
    if truth["dust_optical_depth_r"]:
        # Dust lies on the inner side of the arms, and between them in patches.
        lanes = arm_ridges(truth, radius * 1.12, azimuth, arms)
        patches = texture.draw(0.8)
        depth = truth["dust_optical_depth_r"] * (0.25 + lanes) * patches * np.exp(-radius / (1.5 * scale_length))
        canvas.dim(depth / np.sqrt(truth["axis_ratio"]))
    if "bar" in fluxes:
        canvas.add_pattern(fluxes["bar"], bar_brightness(truth, canvas.east, canvas.north))
    _put_bulge(canvas, truth, fluxes)
    if "clumps" in fluxes:
        _put_clumps(canvas, truth, fluxes["clumps"], arms, scale_length, rng)


def _put_clumps(canvas: Canvas, truth: dict, flux, arms, scale_length: float, rng: np.random.Generator):
    """Young star clusters, strewn along the arms; irregular galaxies have them anywhere."""
    number = int(rng.integers(6, 36))
    angle = np.array([arm[0] for arm in arms])[rng.integers(len(arms), size=number)]
    radius = truth["arm_start_arcsec"] + scale_length * rng.gamma(2.0, 0.6, number)
    spread = 1.5 if truth["disturbance"] == "irregular" else 0.18
    place = arm_azimuth(truth, radius) + angle + rng.normal(0, spread, number)
    places = disc_to_sky(radius * np.cos(place), radius * np.sin(place), truth)
    chain = (*places, rng.exponential(1, number))
    canvas.add_chain(flux, chain, rng.uniform(0.1, 0.45, number))


def _put_edge_on(canvas: Canvas, truth: dict, fluxes: Fluxes, rng: np.random.Generator):
    along, across = disc_plane(canvas.east, canvas.north, truth)  # across, in scale lengths of the height
    scale_length = truth["half_light_radius_arcsec"] / HALF_LIGHT_PER_SCALE_LENGTH
    # Few discs are quite flat: the ends bend to opposite sides.
    bend = rng.normal(0, 0.025) / truth["axis_ratio"]
    height = np.abs(across - bend * along * np.abs(along) / (3 * scale_length)) / scale_length
    # The line of sight through a disc rounds off its centre, and ends where the disc ends.
    radial = disc_brightness(truth, np.hypot(along, 0.3 * scale_length), scale_length)
    radial /= 1 + np.exp(np.clip((np.abs(along) / scale_length - rng.uniform(3, 4.5)) / 0.25, -50, 50))
    uneven = _unevenness_along(along, scale_length, truth["flocculence"], rng)
    canvas.add_pattern(fluxes["body"], radial * uneven / np.cosh(np.minimum(height, 50)) ** 2)
    if truth["dust_optical_depth_r"]:
        # A thin lane; seen not quite from the side it is not in the middle.
        offset = np.cos(np.radians(truth["inclination_deg"])) / truth["axis_ratio"] * rng.choice([-0.5, 0.5])
        lane = np.exp(-np.abs(across / scale_length - offset) / 0.3 - np.abs(along) / (1.3 * scale_length))
        canvas.dim(truth["dust_optical_depth_r"] * lane * uneven, share_behind=0.75)
    _put_bulge(canvas, truth, fluxes)
    if "clumps" in fluxes:
        number = int(rng.integers(4, 20))
        places = disc_to_sky(scale_length * rng.laplace(0, 1, number), scale_length * rng.normal(0, 0.4, number), truth)
        canvas.add_chain(fluxes["clumps"], (*places, rng.exponential(1, number)), rng.uniform(0.1, 0.4, number))


def _unevenness_along(along: np.ndarray, scale_length: float, amplitude: float, rng: np.random.Generator):
    """Return log-normal noise along the disc, of about half a scale length."""
    knots = np.linspace(-6, 6, 40)
    values = np.convolve(rng.standard_normal(46), np.hanning(7) / 2, mode="valid")
    return np.exp(amplitude * np.interp(along / scale_length, knots, values))


# ----------------------------------------------------------------------------- disturbances and mergers


def _tail(rng: np.random.Generator, start_arcsec: float, length_arcsec: float, angle_deg: float):
    """Return east, north and weights along a tail that leaves in this direction, curving and fading."""
    step = np.linspace(0, 1, 50)
    curve = rng.choice([-1, 1]) * rng.uniform(30, 120) * step
    east, north = polar(start_arcsec + length_arcsec * step, angle_deg + curve)
    return east, north, np.exp(-2.0 * step)


def _shell(rng: np.random.Generator, radius_arcsec: float, angle_deg: float):
    """Return east, north and weights along an arc around the centre."""
    step = np.linspace(-1, 1, 60)
    east, north = polar(np.full(60, radius_arcsec), angle_deg + rng.uniform(25, 60) * step)
    return east, north, 1 - 0.7 * step**2


def _put_disturbance(canvas: Canvas, truth: dict, fluxes: Fluxes, rng: np.random.Generator):
    size, towards = truth["half_light_radius_arcsec"], truth["lopsided_towards_deg"]
    if truth["disturbance"] == "shells":
        _put_shells(canvas, truth, fluxes, rng)
    elif "tidal" in fluxes:
        number = int(rng.integers(1, 3))
        for part in range(number):
            start, length = size * rng.uniform(0.7, 1.1), size * rng.uniform(1.2, 2.6)
            chain = _tail(rng, start, length, towards + 180 * part + rng.normal(0, 30))
            canvas.add_chain(fluxes["tidal"] / number, chain, size * np.linspace(0.15, rng.uniform(0.2, 0.4), 50))


def _put_shells(canvas: Canvas, truth: dict, fluxes: Fluxes, rng: np.random.Generator):
    """Arcs to both sides along one axis, as a swallowed disc leaves them, and a broad plume."""
    size, axis = truth["half_light_radius_arcsec"], rng.uniform(0, 360)
    number = int(rng.integers(2, 5))
    for part in range(number):
        chain = _shell(rng, size * rng.uniform(1.2, 3.0), axis + 180 * part + rng.normal(0, 20))
        canvas.add_chain(0.6 * fluxes["tidal"] / number, chain, size * rng.uniform(0.06, 0.15))
    plume = _tail(rng, 0.5 * size, 2.5 * size, axis + rng.normal(0, 30))
    canvas.add_chain(0.4 * fluxes["tidal"], plume, size * np.linspace(0.2, 0.6, 50))
    if "clumps" in fluxes:
        count = int(rng.integers(1, 4))
        places = polar(size * rng.uniform(0.3, 1.5, count), rng.uniform(0, 360, count))
        canvas.add_chain(fluxes["clumps"], (*places, rng.exponential(1, count)), 0.3)


def _put_companion(canvas: Canvas, truth: dict, fluxes: Fluxes, rng: np.random.Generator):
    size, angle = truth["half_light_radius_arcsec"], truth["companion_position_angle_deg"]
    separation = truth["companion_separation_arcsec"]
    east, north = polar(separation, angle)
    # The companion is as large for its light as the galaxy is.
    companion_size = max(0.8, size * (fluxes["companion"][1] / fluxes["body"][1]) ** 0.5 * rng.uniform(0.6, 1.0))
    axis_ratio, position_angle = rng.uniform(0.4, 0.95), rng.uniform(0, 180)
    core = rng.uniform(0.2, 0.6)
    for share, index, radius in ((core, 2.0, 0.5 * companion_size), (1 - core, 1.0, companion_size)):
        flux = share * fluxes["companion"]
        canvas.add_sersic(flux, index, radius, axis_ratio, position_angle, east, north)
    if "tidal" not in fluxes:
        return
    step = np.linspace(0, 1, 30)
    bow = rng.normal(0, 0.3) * np.sin(np.pi * step)
    bridge = (east * step - north * bow, north * step + east * bow, np.ones(30))
    canvas.add_chain(0.3 * fluxes["tidal"], bridge, rng.uniform(0.15, 0.35) * size)
    for start, outwards in ((0.8 * size, angle + 180), (separation, angle)):
        tail = _tail(rng, start, size * rng.uniform(1.2, 3.0), outwards + rng.normal(0, 35))
        canvas.add_chain(0.35 * fluxes["tidal"], tail, size * np.linspace(0.15, rng.uniform(0.25, 0.5), 50))
