"""Simulated galaxies of the ten Galaxy10 DECaLS classes, as DECaLS would see them in g, r and z.

A galaxy is a sum of components of one colour each: Sersic bodies, patterns painted face on and then
inclined (disc, bar, arms), and chains of blobs (stars, clumps, tidal tails). All meet in Fourier space, where
offsets, seeing and the sum cost little, so that a band costs one transform. Light that leaves the frame of
at least 75 arcsec comes back in on the other side, too faint to be seen.
"""

from functools import lru_cache

import galsim
import numpy as np
from scipy import fft

from galgaze.surveys.simulated.noise import plain, quantised, stream
from galgaze.tasks import OPTICAL_MORPHOLOGY

SKY_VERSION = 1

BANDS = "grz"
NOISE_NANOMAGGY = np.array([0.004, 0.007, 0.018])  # a pixel of 0.262 arcsec
NOISE_PIXEL_ARCSEC = 0.262
STEP_NANOMAGGY = 2.0**-14
FRAME_ARCSEC = 75.4  # what is drawn at the least, so that the sky does not depend on the image's size
FINEST_NEEDED_ARCSEC = 0.3  # a coarser image is drawn finer and binned
MOFFAT_BETA = 3.5
BAR_FERRERS_INDEX = 0.5  # (1 - m^2)^n: a bar with a definite end
HALF_LIGHT_PER_SCALE_LENGTH = 1.678  # of an exponential disc
MEAN_STARS, MEAN_NEIGHBOURS = 6, 6
ACCURACY = galsim.GSParams(folding_threshold=1e-2, maxk_threshold=1e-2, kvalue_accuracy=1e-4)

# Component: its share of the light in r, and its colour. What no share claims is the body's: the disc, or
# the whole of an elliptical.
LIGHT = {
    "bulge": ("bulge_fraction", "bulge_g_minus_r_mag"),
    "bar": ("bar_fraction", "bulge_g_minus_r_mag"),
    "arms": ("arm_fraction", "arm_g_minus_r_mag"),
    "clumps": ("clump_fraction", "arm_g_minus_r_mag"),
    "tidal": ("tidal_fraction", "body_g_minus_r_mag"),
    "companion": ("companion_fraction", "companion_g_minus_r_mag"),
}

TRUTH_KEYS = (
    "class_label",
    "class_index",
    "axis_ratio",
    "position_angle_deg",
    "half_light_radius_arcsec",
    "sersic_index",
    "r_mag",
    "flux_g_nanomaggy",
    "flux_r_nanomaggy",
    "flux_z_nanomaggy",
    "inclination_deg",
    "pitch_angle_deg",
    "n_arms",
    "arm_winding",
    "arm_start_arcsec",
    "bulge_half_light_radius_arcsec",
    "bar_length_arcsec",
    "bar_position_angle_deg",
    "bar_axis_ratio",
    "bar_face_on_length_arcsec",
    "bar_face_on_axis_ratio",
    "bar_angle_in_disc_deg",
    "companion_separation_arcsec",
    "companion_position_angle_deg",
    *(share for share, _ in LIGHT.values()),
    "body_g_minus_r_mag",
    "bulge_g_minus_r_mag",
    "arm_g_minus_r_mag",
    "companion_g_minus_r_mag",
    "psf_fwhm_arcsec",
)


def _chance(seed: int, source_id: str, purpose: str) -> np.random.Generator:
    return stream("legacy-simulated", SKY_VERSION, seed, source_id, purpose)


# ---------------------------------------------------------------------------------------------- truth


def optical_truth(seed: int, source_id: str) -> dict:
    """Draw the parameters of a galaxy.

    Parameters
    ----------
    seed : int
        Of the sky.
    source_id : str
        Any text.

    Returns
    -------
    dict
        The same keys for every class, None where there is no such thing. Angles on the sky are east of north,
        0 to 180. ``half_light_radius_arcsec`` is along the major axis, of the disc where there is one.
        Fractions are of the light in r. ``axis_ratio`` is that of the disc as projected, or of the Sersic
        body; edge on, it is scale height over scale length. ``bar_length_arcsec`` (full length),
        ``bar_position_angle_deg`` and ``bar_axis_ratio`` are of the ellipse that the bar's edge makes on
        the sky, before the seeing.
    """
    rng = _chance(seed, source_id, "truth")
    index = int(rng.integers(len(OPTICAL_MORPHOLOGY.classes)))
    label = OPTICAL_MORPHOLOGY.classes[index]
    r_mag = rng.uniform(14.5, 17.5)
    truth = dict.fromkeys(TRUTH_KEYS) | {
        "class_label": label,
        "class_index": index,
        "r_mag": r_mag,
        "position_angle_deg": rng.uniform(0, 180),
        # The brighter, the larger, so that the surface brightness is a galaxy's.
        "half_light_radius_arcsec": np.clip(4.8 * 10 ** (0.12 * (16 - r_mag) + rng.normal(0, 0.08)), 3, 8),
        "psf_fwhm_arcsec": np.clip(rng.normal(1.3, 0.1), 1.05, 1.6),
    }
    truth |= _TRUTH_OF[label](rng, truth)
    flux = sum(_component_fluxes(truth).values())
    truth |= {f"flux_{band}_nanomaggy": value for band, value in zip(BANDS, flux, strict=True)}
    return plain(truth)


def _smooth_truth(rng: np.random.Generator, truth: dict) -> dict:
    low, high = {"round_smooth": (0.86, 1), "in_between_smooth": (0.5, 0.8), "cigar_smooth": (0.2, 0.4)}[
        truth["class_label"]
    ]
    # Flattened galaxies tend to discs; indices on a grid, since GalSim makes a table for each.
    index = rng.choice([1.0, 1.5, 2.0] if truth["class_label"] == "cigar_smooth" else [2.0, 2.5, 3.0, 4.0])
    return {
        "axis_ratio": rng.uniform(low, high),
        "sersic_index": index,
        "body_g_minus_r_mag": rng.normal(0.85, 0.08),
    }


def _disc_colours(rng: np.random.Generator) -> dict:
    disc = np.clip(rng.normal(0.6, 0.07), 0.45, 0.75)
    return {
        "body_g_minus_r_mag": disc,
        "bulge_g_minus_r_mag": disc + rng.uniform(0.2, 0.35),
        "arm_g_minus_r_mag": disc - rng.uniform(0.25, 0.4),
    }


def _spiral_truth(rng: np.random.Generator, truth: dict) -> dict:
    barred = truth["class_label"] == "barred_spiral"
    tight = truth["class_label"] == "unbarred_tight_spiral"
    # Galaxies classified by their arms are large and not steeply inclined.
    half_light = min(truth["half_light_radius_arcsec"] * (1.35 if barred else 1.25), 8.0)
    half_light = max(half_light, 4.5)
    scale_length = half_light / HALF_LIGHT_PER_SCALE_LENGTH
    axis_ratio = rng.uniform(0.5 if barred else 0.6, 1)
    spiral = _disc_colours(rng) | {
        "half_light_radius_arcsec": half_light,
        "axis_ratio": axis_ratio,
        "inclination_deg": np.degrees(np.arccos(axis_ratio)),
        "arm_winding": int(rng.choice([-1, 1])),
        "bulge_half_light_radius_arcsec": half_light * rng.uniform(0.1, 0.17),
    }
    if not barred:
        return spiral | {
            "pitch_angle_deg": rng.uniform(8, 15) if tight else rng.uniform(22, 38),
            # Wound tightly, many arms would lie closer together than the seeing can tell.
            "n_arms": int(rng.choice([2, 2, 2, 3] if tight else [2, 2, 3, 4])),
            "arm_start_arcsec": scale_length * (rng.uniform(0.5, 0.7) if tight else rng.uniform(0.6, 0.9)),
            "bulge_fraction": rng.uniform(0.15, 0.3) if tight else rng.uniform(0.05, 0.2),
            "arm_fraction": rng.uniform(0.3, 0.4) if tight else rng.uniform(0.35, 0.45),
            "clump_fraction": rng.uniform(0.02, 0.08),
        }
    length = 2 * scale_length * rng.uniform(1.2, 1.9)
    bar = {
        "bar_face_on_length_arcsec": length,
        "bar_face_on_axis_ratio": rng.uniform(0.22, 0.38),
        "bar_angle_in_disc_deg": rng.uniform(0, 180),
    }
    return (
        spiral
        | bar
        | _projected_bar(bar | {"position_angle_deg": truth["position_angle_deg"], "axis_ratio": axis_ratio})
        | {
            "pitch_angle_deg": rng.uniform(12, 28),
            "n_arms": 2,
            "arm_start_arcsec": length / 2,
            "bulge_fraction": rng.uniform(0.04, 0.1),
            "bar_fraction": rng.uniform(0.22, 0.35),
            "arm_fraction": rng.uniform(0.2, 0.3),
            "clump_fraction": rng.uniform(0.02, 0.06),
        }
    )


def _projected_bar(truth: dict) -> dict:
    """Return length, position angle and axis ratio of the inclined bar: an ellipse remains an ellipse."""
    twist = np.radians(truth["bar_angle_in_disc_deg"])
    disc_to_sky = np.array(_disc_to_sky(*np.eye(2), truth))
    bar_to_disc = np.array([[np.cos(twist), -np.sin(twist)], [np.sin(twist), np.cos(twist)]])
    lengths = truth["bar_face_on_length_arcsec"] * np.array([1, truth["bar_face_on_axis_ratio"]])
    directions, lengths, _ = np.linalg.svd(disc_to_sky @ bar_to_disc @ np.diag(lengths))
    east, north = directions[:, 0]
    return {
        "bar_length_arcsec": lengths[0],
        "bar_position_angle_deg": np.degrees(np.arctan2(east, north)) % 180,
        "bar_axis_ratio": lengths[1] / lengths[0],
    }


def _edge_on_truth(rng: np.random.Generator, truth: dict) -> dict:
    bulge = truth["class_label"] == "edge_on_with_bulge"
    half_light = np.clip(1.3 * truth["half_light_radius_arcsec"], 5.5, 8)
    scale_length = half_light / HALF_LIGHT_PER_SCALE_LENGTH
    height = max(0.5, scale_length * rng.uniform(0.1, 0.14))
    colours = _disc_colours(rng)
    colours["body_g_minus_r_mag"] += 0.15  # the dust in its plane
    return colours | {
        "half_light_radius_arcsec": half_light,
        "axis_ratio": height / scale_length,
        "inclination_deg": rng.uniform(87, 90),
        "bulge_fraction": rng.uniform(0.3, 0.45) if bulge else 0.0,
        "bulge_half_light_radius_arcsec": half_light * rng.uniform(0.22, 0.32) if bulge else None,
    }


def _disturbed_truth(rng: np.random.Generator, truth: dict) -> dict:
    return _disc_colours(rng) | {
        "axis_ratio": rng.uniform(0.4, 0.8),
        "sersic_index": rng.choice([1.0, 1.5]),
        "clump_fraction": rng.uniform(0.1, 0.2),
        "tidal_fraction": rng.uniform(0.15, 0.3),
    }


def _merging_truth(rng: np.random.Generator, truth: dict) -> dict:
    half_light = 0.75 * truth["half_light_radius_arcsec"]
    return _disc_colours(rng) | {
        "half_light_radius_arcsec": half_light,
        "axis_ratio": rng.uniform(0.5, 0.9),
        "sersic_index": rng.choice([1.0, 2.0, 3.0]),
        "companion_g_minus_r_mag": rng.uniform(0.5, 0.9),
        "companion_separation_arcsec": rng.uniform(5, 5 + 1.5 * half_light),
        "companion_position_angle_deg": rng.uniform(0, 360),
        "companion_fraction": rng.uniform(0.25, 0.42),
        "tidal_fraction": rng.uniform(0.12, 0.2),
    }


_TRUTH_OF = {
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


def _in_bands(flux_r: float, g_minus_r: float) -> np.ndarray:
    """Return the flux in g, r, z of a galaxy's light; redder in g - r is redder in r - z."""
    r_minus_z = 0.1 + 0.65 * g_minus_r
    return flux_r * 10 ** (0.4 * np.array([-g_minus_r, 0, r_minus_z]))


def _component_fluxes(truth: dict) -> dict[str, np.ndarray]:
    """Return the flux of each component in g, r and z, in nanomaggies."""
    total = 10 ** (0.4 * (22.5 - truth["r_mag"]))
    shares = {name: truth[share] or 0.0 for name, (share, _) in LIGHT.items()}
    fluxes = {name: _in_bands(share * total, truth[LIGHT[name][1]]) for name, share in shares.items() if share > 0}
    body = (1 - sum(shares.values())) * total
    return fluxes | {"body": _in_bands(body, truth["body_g_minus_r_mag"])}


# --------------------------------------------------------------------------------------------- canvas


class _Canvas:
    """A patch of sky around the source on which components are put, seen through the seeing at the end."""

    def __init__(self, size_px: int, pixel_scale_arcsec: float):
        self.size = size_px
        self.bin = int(np.ceil(pixel_scale_arcsec / FINEST_NEEDED_ARCSEC))
        self.scale = pixel_scale_arcsec / self.bin
        fine = size_px * self.bin
        self.n = fft.next_fast_len(max(int(np.ceil(FRAME_ARCSEC / self.scale)), fine + 32), real=True)
        self.n += self.n % 2
        self.start = (self.n - fine) // 2
        centre = self.start + (fine - 1) / 2
        offset = (np.arange(self.n) - centre) * self.scale
        self.east, self.north = -offset[None, :], offset[:, None]  # column 0 is east
        self.kx = 2 * np.pi * fft.rfftfreq(self.n, self.scale)
        self.ky = 2 * np.pi * fft.fftfreq(self.n, self.scale)
        self.centre_arcsec = centre * self.scale
        self.patterns = np.zeros((3, self.n, self.n))
        self.spectra = np.zeros((3, self.n, self.n // 2 + 1), complex)

    def _waves(self, east, north) -> tuple[np.ndarray, np.ndarray]:
        """Return the two factors of the Fourier transform of points at these places."""
        along_x = np.exp(-1j * np.outer(np.subtract(self.centre_arcsec, east), self.kx))
        along_y = np.exp(-1j * np.outer(np.add(self.centre_arcsec, north), self.ky))
        return along_x, along_y

    def add_pattern(self, flux, brightness: np.ndarray):
        """Add light distributed as this array over the patch."""
        self.patterns += np.multiply.outer(flux / brightness.sum(), brightness)

    def add_sersic(self, flux, index, half_light_radius, axis_ratio, position_angle_deg, east=0.0, north=0.0):
        """Add a Sersic body; its half-light radius is that along the major axis."""
        profile = galsim.Sersic(
            index, half_light_radius=half_light_radius * np.sqrt(axis_ratio), gsparams=ACCURACY
        ).shear(q=axis_ratio, beta=(90 + position_angle_deg) * galsim.degrees)
        along_x, along_y = self._waves([east], [north])
        spectrum = _spectrum(profile, self.n, self.scale) * along_y.T * along_x
        self.spectra += np.multiply.outer(flux, spectrum)

    def add_blobs(self, fluxes: np.ndarray, east, north, sigma_arcsec=None):
        """Add round Gaussian blobs, or points where no widths are given; fluxes are (blobs, 3)."""
        along_x, along_y = self._waves(east, north)
        if sigma_arcsec is not None:
            along_x *= np.exp(-0.5 * np.outer(sigma_arcsec, self.kx) ** 2)
            along_y *= np.exp(-0.5 * np.outer(sigma_arcsec, self.ky) ** 2)
        for spectrum, flux in zip(self.spectra, fluxes.T, strict=True):
            spectrum += (along_y * flux[:, None]).T @ along_x

    def seen(self, psf_fwhm_arcsec: float) -> np.ndarray:
        """Return what the patch looks like through the seeing: (3, H, W)."""
        spectra = fft.rfft2(self.patterns)
        spectra += self.spectra
        spectra *= _psf_spectrum(round(psf_fwhm_arcsec, 2), self.n, self.scale)
        stop = self.start + self.size * self.bin
        fine = fft.irfft2(spectra, s=(self.n, self.n))[:, self.start : stop, self.start : stop]
        return fine.reshape(3, self.size, self.bin, self.size, self.bin).sum(axis=(2, 4))


def _spectrum(profile: galsim.GSObject, n: int, scale: float) -> np.ndarray:
    """Return the profile's Fourier transform in the layout of ``rfft2``."""
    bounds = galsim.BoundsI(0, n // 2, -n // 2, n // 2 - 1)
    image = galsim.ImageCD(bounds, scale=2 * np.pi / (n * scale))
    return fft.ifftshift(profile.drawKImage(image=image, recenter=False).array, axes=0)


@lru_cache(maxsize=128)
def _psf_spectrum(fwhm_arcsec: float, n: int, scale: float) -> np.ndarray:
    # The seeing as measured in an image has the pixel in it already.
    return _spectrum(galsim.Moffat(MOFFAT_BETA, fwhm=fwhm_arcsec, gsparams=ACCURACY), n, scale).real


# ---------------------------------------------------------------------------------------------- galaxy


def _polar(radius, angle_deg) -> tuple[np.ndarray, np.ndarray]:
    """Return east and north of a place at this distance and position angle."""
    return radius * np.sin(np.radians(angle_deg)), radius * np.cos(np.radians(angle_deg))


def _disc_plane(east, north, truth: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return face-on coordinates along and across the line of nodes."""
    sin, cos = _polar(1.0, truth["position_angle_deg"])
    return east * sin + north * cos, (north * sin - east * cos) / truth["axis_ratio"]


def _disc_to_sky(along, across, truth: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return east and north of places in the disc: the inverse of `_disc_plane`."""
    sin, cos = _polar(1.0, truth["position_angle_deg"])
    across = across * truth["axis_ratio"]
    return along * sin - across * cos, along * cos + across * sin


def bar_brightness(truth: dict, east: np.ndarray, north: np.ndarray) -> np.ndarray:
    """Return the bar's surface brightness (any unit) at these offsets in arcsec, without seeing and noise."""
    along, across = _disc_plane(east, north, truth)
    twist, half_length = np.radians(truth["bar_angle_in_disc_deg"]), truth["bar_face_on_length_arcsec"] / 2
    length = (along * np.cos(twist) + across * np.sin(twist)) / half_length
    width = (across * np.cos(twist) - along * np.sin(twist)) / (half_length * truth["bar_face_on_axis_ratio"])
    return np.maximum(1 - length**2 - width**2, 0) ** BAR_FERRERS_INDEX


def _arm_azimuth(truth: dict, radius: np.ndarray) -> np.ndarray:
    """Return where in the disc, in radians, the first arm is at this radius; it starts at a bar's end."""
    turn = np.log(radius / truth["arm_start_arcsec"]) / np.tan(np.radians(truth["pitch_angle_deg"]))
    return np.radians(truth["bar_angle_in_disc_deg"] or 0.0) + truth["arm_winding"] * turn


def _arm_brightness(truth: dict, along: np.ndarray, across: np.ndarray, scale_length: float) -> np.ndarray:
    """Return logarithmic arms that set out where the bar ends, or from near the bulge."""
    radius = np.hypot(along, across) + 1e-3
    start, tight = truth["arm_start_arcsec"], truth["pitch_angle_deg"] < 16
    phase = truth["n_arms"] * (np.arctan2(across, along) - _arm_azimuth(truth, radius))
    ridge = np.exp((3.0 if tight else 4.0) * (np.cos(phase) - 1))
    # Arms outshine the disc they are in further out, and open softly at their start.
    return ridge * np.exp(-radius / (1.15 * scale_length)) / (1 + np.exp((start - radius) / (0.08 * start)))


def _put_spiral(canvas: _Canvas, truth: dict, fluxes: dict, rng: np.random.Generator):
    along, across = _disc_plane(canvas.east, canvas.north, truth)
    scale_length = truth["half_light_radius_arcsec"] / HALF_LIGHT_PER_SCALE_LENGTH
    canvas.add_pattern(fluxes["body"], np.exp(-np.hypot(along, across) / scale_length))
    canvas.add_pattern(fluxes["arms"], _arm_brightness(truth, along, across, scale_length))
    if "bar" in fluxes:
        canvas.add_pattern(fluxes["bar"], bar_brightness(truth, canvas.east, canvas.north))
    canvas.add_sersic(fluxes["bulge"], 2.0, truth["bulge_half_light_radius_arcsec"], 1.0, 0.0)
    # Young star clusters, strewn along the arms.
    number = int(rng.integers(15, 40))
    radius = truth["arm_start_arcsec"] + scale_length * rng.gamma(2.0, 0.6, number)
    arm = 2 * np.pi * rng.integers(truth["n_arms"], size=number) / truth["n_arms"]
    place = _arm_azimuth(truth, radius) + arm + rng.normal(0, 0.12, number)
    places = _disc_to_sky(radius * np.cos(place), radius * np.sin(place), truth)
    _put_chain(canvas, fluxes["clumps"], (*places, rng.exponential(1, number)), 0.3)


def _put_edge_on(canvas: _Canvas, truth: dict, fluxes: dict, rng: np.random.Generator):
    along, across = _disc_plane(canvas.east, canvas.north, truth)  # across, in scale lengths of the height
    scale_length = truth["half_light_radius_arcsec"] / HALF_LIGHT_PER_SCALE_LENGTH
    # The line of sight through a disc rounds off its centre.
    radial = np.exp(-np.hypot(along, 0.3 * scale_length) / scale_length)
    canvas.add_pattern(fluxes["body"], radial / np.cosh(np.minimum(np.abs(across) / scale_length, 50)) ** 2)
    if "bulge" in fluxes:
        round_ish = 0.85
        canvas.add_sersic(
            fluxes["bulge"],
            2.0,
            truth["bulge_half_light_radius_arcsec"],
            round_ish,
            truth["position_angle_deg"],
        )


def _put_smooth(canvas: _Canvas, truth: dict, fluxes: dict, rng: np.random.Generator):
    shape = (truth["half_light_radius_arcsec"], truth["axis_ratio"], truth["position_angle_deg"])
    canvas.add_sersic(fluxes["body"], truth["sersic_index"], *shape)


def _tail(rng: np.random.Generator, start_arcsec: float, length_arcsec: float, angle_deg: float):
    """Return east, north and weights along a tail that leaves in this direction, curving and fading."""
    step = np.linspace(0, 1, 50)
    curve = rng.choice([-1, 1]) * rng.uniform(40, 110) * step
    east, north = _polar(start_arcsec + length_arcsec * step, angle_deg + curve)
    return east, north, np.exp(-2.0 * step)


def _shell(rng: np.random.Generator, radius_arcsec: float, angle_deg: float):
    """Return east, north and weights along an arc around the centre."""
    step = np.linspace(-1, 1, 50)
    east, north = _polar(np.full(50, radius_arcsec), angle_deg + rng.uniform(35, 60) * step)
    return east, north, 1 - 0.7 * step**2


def _put_chain(canvas: _Canvas, flux, chain, sigma_arcsec):
    east, north, weights = chain
    sigma = np.broadcast_to(sigma_arcsec, weights.shape)
    canvas.add_blobs(np.outer(weights / weights.sum(), flux), east, north, sigma)


def _put_disturbed(canvas: _Canvas, truth: dict, fluxes: dict, rng: np.random.Generator):
    size, angle = truth["half_light_radius_arcsec"], truth["position_angle_deg"]
    # A core and, off its centre and turned, the rest of what was a disc.
    heavy_side = rng.uniform(0, 360)
    canvas.add_sersic(0.4 * fluxes["body"], truth["sersic_index"], 0.5 * size, truth["axis_ratio"], angle)
    east, north = _polar(size * rng.uniform(0.4, 0.8), heavy_side)
    twist = angle + rng.uniform(20, 70)
    canvas.add_sersic(0.6 * fluxes["body"], 1.0, size, truth["axis_ratio"], twist, east, north)
    number = int(rng.integers(3, 8))
    places = _polar(size * rng.uniform(0.5, 1.6, number), heavy_side + rng.normal(0, 45, number))
    clumps = (*places, rng.uniform(0.3, 1, number))
    _put_chain(canvas, fluxes["clumps"], clumps, rng.uniform(0.4, 1.0, number))
    if rng.random() < 0.6:
        chain = _tail(rng, 0.8 * size, size * rng.uniform(1.8, 3), heavy_side + rng.normal(0, 40))
    else:
        chain = _shell(rng, size * rng.uniform(1.8, 2.4), heavy_side + rng.normal(0, 40))
    _put_chain(canvas, fluxes["tidal"], chain, size * np.linspace(0.2, 0.4, 50))


def _put_merging(canvas: _Canvas, truth: dict, fluxes: dict, rng: np.random.Generator):
    size, angle = truth["half_light_radius_arcsec"], truth["companion_position_angle_deg"]
    _put_smooth(canvas, truth, fluxes, rng)
    east, north = _polar(truth["companion_separation_arcsec"], angle)
    # The companion is as large for its light as the galaxy is.
    companion_size = size * (fluxes["companion"][1] / fluxes["body"][1]) ** 0.5
    companion_shape = (rng.choice([1.0, 2.0]), companion_size, rng.uniform(0.4, 0.9), rng.uniform(0, 180))
    canvas.add_sersic(fluxes["companion"], *companion_shape, east, north)
    step = np.linspace(0, 1, 30)
    bow = rng.normal(0, 0.25) * np.sin(np.pi * step)
    bridge = (east * step - north * bow, north * step + east * bow, np.ones(30))
    _put_chain(canvas, 0.35 * fluxes["tidal"], bridge, 0.25 * size)
    for start, outwards in ((0.8 * size, angle + 180), (truth["companion_separation_arcsec"], angle)):
        tail = _tail(rng, start, size * rng.uniform(2, 3.5), outwards + rng.normal(0, 20))
        _put_chain(canvas, 0.325 * fluxes["tidal"], tail, size * np.linspace(0.2, 0.45, 50))


_PUT = {
    "disturbed": _put_disturbed,
    "merging": _put_merging,
    "round_smooth": _put_smooth,
    "in_between_smooth": _put_smooth,
    "cigar_smooth": _put_smooth,
    "barred_spiral": _put_spiral,
    "unbarred_tight_spiral": _put_spiral,
    "unbarred_loose_spiral": _put_spiral,
    "edge_on_without_bulge": _put_edge_on,
    "edge_on_with_bulge": _put_edge_on,
}


def _put_field(canvas: _Canvas, rng: np.random.Generator):
    """Put stars and faint galaxies around the source, none of them on it."""

    def places(number):
        distance = np.sqrt(rng.uniform(5**2, (FRAME_ARCSEC / 2) ** 2, number))
        return _polar(distance, rng.uniform(0, 360, number))

    number = rng.poisson(MEAN_STARS)
    flux_r = 10 ** (0.4 * (22.5 - np.minimum(22.5, 17 + 6 * rng.random(number) ** 0.5)))
    fluxes = np.array([_in_bands(*star) for star in zip(flux_r, rng.uniform(0.3, 1.5, number), strict=True)])
    canvas.add_blobs(fluxes.reshape(-1, 3), *places(number))
    for east, north in zip(*places(rng.poisson(MEAN_NEIGHBOURS)), strict=True):
        flux = _in_bands(10 ** (0.4 * (22.5 - rng.uniform(19, 22.5))), rng.uniform(0.4, 1.3))
        shape = (rng.uniform(0.4, 1.0), rng.uniform(0.4, 1), rng.uniform(0, 180))
        canvas.add_sersic(flux, 1.0, *shape, east, north)


def optical_brightness(
    truth: dict, rng: np.random.Generator, size_px: int, pixel_scale_arcsec: float, field: bool = True
) -> np.ndarray:
    """Draw the galaxy without noise, nanomaggies per pixel; ``rng`` makes what the truth does not name."""
    canvas = _Canvas(size_px, pixel_scale_arcsec)
    _PUT[truth["class_label"]](canvas, truth, _component_fluxes(truth), rng)
    if field:
        _put_field(canvas, rng)
    return canvas.seen(truth["psf_fwhm_arcsec"])


def draw_optical(seed: int, source_id: str, size_px: int = 256, pixel_scale_arcsec: float = 0.262) -> np.ndarray:
    """Draw a galaxy as DECaLS would serve it.

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
        (3, H, W) float32 in nanomaggies per pixel, bands g r z; row 0 is south, column 0 is east.
    """
    image = optical_brightness(
        optical_truth(seed, source_id), _chance(seed, source_id, "scene"), size_px, pixel_scale_arcsec
    )
    # The noise is the sky's: its variance grows with the area of a pixel.
    sigma = NOISE_NANOMAGGY * (pixel_scale_arcsec / NOISE_PIXEL_ARCSEC)
    noise = _chance(seed, source_id, "noise").standard_normal(image.shape, dtype=np.float32)
    return quantised(image + sigma[:, None, None] * noise, STEP_NANOMAGGY)
