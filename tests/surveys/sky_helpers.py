"""What the tests of the simulated skies share: offsets, angles and hashes."""

import hashlib

import numpy as np


def offsets(size, scale):
    """East and north of the pixels in arcsec: column 0 is east, row 0 is south."""
    offset = (np.arange(size) - (size - 1) / 2) * scale
    return -offset[None, :] + np.zeros((size, 1)), offset[:, None] + np.zeros((1, size))


def angle_between(a, b):
    """Between two axes, in degrees."""
    return abs((a - b + 90) % 180 - 90)


def digest(*arrays):
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def shape_of(image, east, north):
    """Position angle (deg) and the two variances (arcsec^2, larger first) from second moments."""
    weights = image / image.sum()
    de, dn = east - (weights * east).sum(), north - (weights * north).sum()
    cross = (weights * de * dn).sum()
    covariance = np.array([[(weights * de * de).sum(), cross], [cross, (weights * dn * dn).sum()]])
    variances, directions = np.linalg.eigh(covariance)
    return np.degrees(np.arctan2(*directions[:, 1])) % 180, variances[1], variances[0]
