"""SmoothGrad: which pixels a network's score hangs on."""

import hashlib
from collections.abc import Callable

import numpy as np
import torch


def smoothgrad(
    score: Callable[[torch.Tensor], torch.Tensor],
    image: torch.Tensor,
    samples: int,
    noise_fraction: float,
    seed: int,
    chunk: int = 10,
) -> np.ndarray:
    r"""Compute the SmoothGrad saliency map of one image.

    ``S(h, w) = max_c (1/n) sum_i |d score(x + n_i) / d x (c, h, w)|``, the noise ``n_i`` Gaussian with
    ``sigma = noise_fraction (max x - min x)``; then scaled to 0..1 by its minimum and maximum.
    Smilkov et al. 2017 (arXiv:1706.03825), as Bhambra et al. 2022 (arXiv:2110.08288) use it: 256 copies,
    noise_fraction 0.25, the logit as score.

    The noise is drawn on the CPU, one copy after the other, so the same seed gives the same noise whatever
    the chunk and the device; the sum runs in float64, so that what differs is the network's own rounding.

    Parameters
    ----------
    score : callable
        Takes images (B, C, H, W) and returns logits (B,), each of its own image alone (a network in
        evaluation mode).
    image : torch.Tensor, shape (C, H, W)
        Floating point, prepared as for the network, on the network's device.
    samples : int
        Number of noisy copies n.
    noise_fraction : float
        Noise in units of the image's range; 0 gives the plain gradient.
    seed : int
        Of the noise; see `seed_of`.
    chunk : int
        How many copies go through the network at once. Memory grows with it, the result does not change.

    Returns
    -------
    np.ndarray, shape (H, W), float32
        Saliency in 0..1; zeros if the gradient is the same everywhere; NaN everywhere if a gradient is not
        finite.

    Raises
    ------
    ValueError
        If the image is no floating-point (C, H, W), `samples` or `chunk` is below 1, `noise_fraction` is
        negative, or the score does not return (B,).
    """
    if image.ndim != 3 or not image.is_floating_point():
        msg = f"smoothgrad needs a floating-point image (C, H, W), got {image.dtype} {tuple(image.shape)}"
        raise ValueError(msg)
    if samples < 1 or chunk < 1 or not noise_fraction >= 0:
        msg = (
            "smoothgrad needs samples >= 1, chunk >= 1 and noise_fraction >= 0, "
            f"got {samples}, {chunk} and {noise_fraction}"
        )
        raise ValueError(msg)

    image = image.detach()
    sigma = noise_fraction * (image.max() - image.min())
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(image.shape, dtype=torch.float64)
    for start in range(0, samples, chunk):
        count = min(chunk, samples - start)
        noise = torch.stack([torch.randn(image.shape, generator=generator) for _ in range(count)])
        noisy = (image + sigma * noise.to(image)).requires_grad_()  # (count, C, H, W)
        with torch.enable_grad():  # the caller may well be in no_grad
            logit = score(noisy)
            if logit.shape != (count,):
                msg = f"the score of {count} images must have shape ({count},), got {tuple(logit.shape)}"
                raise ValueError(msg)
            (gradient,) = torch.autograd.grad(logit.sum(), noisy)
        total += gradient.cpu().double().abs().sum(dim=0)

    saliency = total.amax(dim=0).numpy() / samples  # (H, W)
    low, high = saliency.min(), saliency.max()
    if not np.isfinite(high):
        return np.full(saliency.shape, np.nan, dtype=np.float32)
    if low == high:
        return np.zeros(saliency.shape, dtype=np.float32)
    return ((saliency - low) / (high - low)).astype(np.float32)


def seed_of(source_id: str, seed: int) -> int:
    """Return a source's own seed, ``sha256("seed:source_id")`` cut to 63 bits.

    A source's noise so depends on nothing but the run's seed and its id: not on the sources beside it, the
    order, the worker or the machine.

    Parameters
    ----------
    source_id : str
        The source.
    seed : int
        The run's seed.

    Returns
    -------
    int
        0 <= seed < 2^63.
    """
    digest = hashlib.sha256(f"{seed}:{source_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
