"""Where an attention map looks, in a few numbers that do not depend on the map's size or scale."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr


@dataclass(frozen=True)
class AttentionStatistics:
    """Statistics of one attention map (floats), or of a batch of maps (arrays of the batch's shape).

    Attributes
    ----------
    entropy : float
        0 if all attention lies in one pixel, 1 if it is spread evenly.
    peak : float
        The map's maximum over its mean: 1 if even, the number of pixels if all lies in one.
    effective_area_arcsec2 : float
        The area that the attention covers.
    centroid_offset_arcsec : float
        Distance of the attention's centroid from the source.
    """

    entropy: float
    peak: float
    effective_area_arcsec2: float
    centroid_offset_arcsec: float


def attention_statistics(
    attention: np.ndarray, jacobian_arcsec: np.ndarray, centre_px: ArrayLike
) -> AttentionStatistics:
    r"""Describe an attention map by its spread, peak, area and place.

    With ``a`` the map, ``N`` its number of pixels, ``p = a / sum(a)`` and ``J`` the Jacobian:

    - ``entropy = -sum(p ln p) / ln N``
    - ``peak = max(a) / mean(a)``
    - ``effective_area_arcsec2 = sum(a)^2 / sum(a^2) |det J|``, the area of an even patch with the same
      participation ratio (for a Gaussian of sigma: ``4 pi sigma^2``)
    - ``centroid_offset_arcsec = |J (sum(p r) - r_0)|``, r the pixels' (column, row), r_0 `centre_px`

    None depends on the map's scale. A constant map gives entropy 1, peak 1 and the whole map's area.

    Parameters
    ----------
    attention : np.ndarray, shape (..., H, W)
        Non-negative attention; leading axes are a batch. Maps that can be negative (std_mean_norm, tanh:
        Bowles et al. 2021, arXiv:2012.01248) have to be shifted by the caller, who knows their zero.
    jacobian_arcsec : np.ndarray, shape (2, 2) or (..., 2, 2)
        d(east, north) / d(column, row) in arcsec per pixel of *this* map, which may be smaller than the
        image. NaN (unknown pixel scale) makes the area and the offset NaN, and leaves the others.
    centre_px : array_like, shape (2,) or (..., 2)
        The source's (column, row) in this map, pixel centres at integers.

    Returns
    -------
    AttentionStatistics
        All NaN for a map that is zero everywhere or has NaN or infinite pixels: such a map says nothing.
        The entropy of a map of one pixel is NaN.

    Raises
    ------
    ValueError
        If the shapes are wrong, the map is empty or a pixel is negative.
    """
    attention = np.asarray(attention, dtype=np.float64)
    jacobian = np.asarray(jacobian_arcsec, dtype=np.float64)
    centre = np.asarray(centre_px, dtype=np.float64)
    if attention.ndim < 2 or attention.size == 0 or jacobian.shape[-2:] != (2, 2) or centre.shape[-1:] != (2,):
        msg = (
            "attention_statistics needs maps (..., H, W), a Jacobian (..., 2, 2) and a centre (..., 2), "
            f"got {attention.shape}, {jacobian.shape} and {centre.shape}"
        )
        raise ValueError(msg)
    if (attention < 0).any():
        msg = f"attention must not be negative, got {np.nanmin(attention)}; shift the map to its own zero first"
        raise ValueError(msg)

    height, width = attention.shape[-2:]
    maximum = attention.max(axis=(-2, -1), keepdims=True)  # NaN if any pixel is
    usable = np.isfinite(maximum) & (maximum > 0)
    # In units of the maximum, so that no square over- or underflows.
    scaled = np.divide(attention, maximum, out=np.full_like(attention, np.nan), where=usable)
    total = scaled.sum(axis=(-2, -1))
    share = scaled / total[..., None, None]  # p

    pixels = height * width
    entropy = entr(share).sum(axis=(-2, -1)) / np.log(pixels) if pixels > 1 else np.full_like(total, np.nan)
    area_px = total**2 / (scaled**2).sum(axis=(-2, -1))
    centroid = np.stack(
        [
            (share.sum(axis=-2) * np.arange(width)).sum(axis=-1),
            (share.sum(axis=-1) * np.arange(height)).sum(axis=-1),
        ],
        axis=-1,
    )  # (..., 2), column and row
    offset = (jacobian @ (centroid - centre)[..., None])[..., 0]  # (..., 2), east and north

    determinant = jacobian[..., 0, 0] * jacobian[..., 1, 1] - jacobian[..., 0, 1] * jacobian[..., 1, 0]

    values = (
        np.clip(entropy, 0, 1),  # rounding alone leaves the interval
        pixels / total,
        area_px * np.abs(determinant),
        np.hypot(offset[..., 0], offset[..., 1]),
    )
    if attention.ndim == 2:
        values = tuple(float(value) for value in values)
    return AttentionStatistics(*values)
