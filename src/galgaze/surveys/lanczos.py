"""Resampling as the Legacy Surveys viewer does it: Lanczos-3, on images halved until they are nearly as coarse."""

import numpy as np
from scipy.ndimage import gaussian_filter

REACH = 3  # the 3 of Lanczos-3
TINY_PX = 1e-9


def lanczos3(image: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Values between the pixels: weights sinc(d) sinc(d/3) for d < 3 px along each axis, made to sum to one.

    Parameters
    ----------
    image : numpy.ndarray
        (H, W), finite. Beyond its edges stands the nearest pixel.
    columns, rows : numpy.ndarray
        (N,) positions; pixel centres at whole numbers, where the pixel itself is the answer.

    Returns
    -------
    numpy.ndarray
        (N,) float32; the image's unit, so that a coarser or finer grid keeps the values (flux a native pixel).
    """
    column, row = nearest(columns), nearest(rows)
    across, along = _weights(columns - column), _weights(rows - row)
    height, width = image.shape
    pixels = np.pad(image, REACH, mode="edge").ravel()
    # of the first of the 7 x 7 pixels in the padded image
    start = np.clip(row, 0, height - 1) * (width + 2 * REACH) + np.clip(column, 0, width - 1)
    values = np.zeros(len(columns), np.float32)
    for step_y, weight_y in enumerate(along):
        line = np.zeros_like(values)
        for step_x, weight_x in enumerate(across):
            line += weight_x * pixels.take(start + (step_y * (width + 2 * REACH) + step_x))
        values += weight_y * line
    return values


def _weights(fraction: np.ndarray) -> np.ndarray:
    """(7, N), for the pixels 3 before to 3 after the nearest one.

    At d = k - f the first sine, sin(pi d), is the same for all whole k but for its sign: the sum takes it out.
    """
    fraction = np.where(abs(fraction) < TINY_PX, TINY_PX, fraction)  # weights that differ from 0 and 1 by less
    steps = np.arange(-REACH, REACH + 1)[:, None]
    sine, cosine = np.sin(np.pi / REACH * fraction), np.cos(np.pi / REACH * fraction)
    second = np.sin(np.pi / REACH * steps) * cosine - np.cos(np.pi / REACH * steps) * sine
    distance = steps - fraction
    weights = np.where(abs(distance) < REACH, np.where(steps % 2, -second, second) / distance**2, 0)
    return (weights / weights.sum(axis=0)).astype(np.float32)


def nearest(positions: np.ndarray) -> np.ndarray:
    """Whole numbers."""
    return np.rint(positions).astype(int)


def halvings(pixel_scale: float, native: float) -> int:
    """How often the viewer halves the images for this pixel scale: pixels stay finer than half of those asked for.

    At exactly twice the native scale it does not: the pixels of a tangent plane away from its centre are a little
    smaller on the sky, and the viewer rounds down.
    """
    return max(0, int(np.ceil(np.log2(pixel_scale / native) - 1e-9)) - 1)


def halve(image: np.ndarray) -> np.ndarray:
    """(H, W) to (H/2, W/2), both even: smoothed with a Gaussian of 1 px, then means of 2 x 2."""
    return mean_of_four(gaussian_filter(image, 1.0))


def mean_of_four(image: np.ndarray) -> np.ndarray:
    """(H, W) to (H/2, W/2)."""
    height, width = image.shape
    return image.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3), dtype=np.float32)
