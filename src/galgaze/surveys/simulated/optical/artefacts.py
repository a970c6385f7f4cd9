"""What goes wrong with images: trails, and pixels that were not observed."""

import numpy as np

SATURATION_NANOMAGGY = 40.0  # of a native pixel: where the trails of a bright star begin


def put_artefact(image: np.ndarray, artefact: str, rng: np.random.Generator) -> np.ndarray | None:
    """Put an artefact on the image, in place; returns what is observed (3, N, N), 0 or 1, or None for all."""
    side = image.shape[1]
    if artefact == "bleed_trail":
        _put_bleed_trail(image, rng)
    elif artefact == "satellite_trail":
        _put_satellite_trail(image, rng)
    elif artefact == "missing_band":
        observed = np.ones_like(image)
        observed[rng.integers(3)] = 0
        return observed
    elif artefact == "partial_coverage":
        angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(-0.1, 0.9) * side / 2
        row, column = np.mgrid[:side, :side] - (side - 1) / 2
        observed = column * np.cos(angle) + row * np.sin(angle) < depth
        return np.broadcast_to(observed, image.shape).astype(float)
    return None


def _put_bleed_trail(image: np.ndarray, rng: np.random.Generator):
    """A saturated star, with charge that ran along its columns; in every band a little otherwise."""
    side = image.shape[1]
    row, column = rng.uniform(0, side, 2)
    if abs(column - side / 2) < 20:  # nobody would look at a galaxy under a trail
        column = side / 2 + 30
    rows, columns = np.ogrid[:side, :side]
    halo = (1 + ((rows - row) ** 2 + (columns - column) ** 2) / 25.0) ** -1.7
    for plane in image:
        plane += SATURATION_NANOMAGGY * rng.uniform(0.5, 2) * halo
        width, length = rng.uniform(0.8, 2.0), rng.uniform(0.2, 0.6) * side
        trail = (np.abs(columns - column) < width) & (np.abs(rows - row) < length)
        plane[trail] = SATURATION_NANOMAGGY * rng.uniform(0.1, 1.0)


def _put_satellite_trail(image: np.ndarray, rng: np.random.Generator):
    """A straight streak in one band: it crossed one exposure only."""
    side = image.shape[1]
    angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.4, 0.4) * side
    row, column = np.mgrid[:side, :side] - (side - 1) / 2
    distance = column * np.cos(angle) + row * np.sin(angle) - offset
    image[rng.integers(3)] += rng.uniform(0.02, 0.15) * np.exp(-0.5 * (distance / 1.5) ** 2)
